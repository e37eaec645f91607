// Ids are `milliseconds-number`. A cursor is an id, or over several partitions `partition:id` pairs.

/**
 * Whether `one` is later than `other`.
 *
 * @param {string} one
 * @param {string} other
 */
export function isLater(one, other) {
  const [ms, number] = one.split('-').map(Number);
  const [otherMs, otherNumber] = other.split('-').map(Number);
  return ms === otherMs ? number > otherNumber : ms > otherMs;
}

/**
 * Whether a stream at `cursor` has shown all that one at `target` has. Not, where they cannot be compared.
 *
 * @param {string | undefined} cursor
 * @param {string} target
 */
export function hasReached(cursor, target) {
  const positions = new Map((cursor ?? '').split(',').map(position));
  return target.split(',').map(position).every(([partition, id]) => {
    const own = positions.get(partition);
    return own !== undefined && (own === id || isLater(own, id));
  });
}

/**
 * @param {string} pair
 * @returns {[string, string]}
 */
function position(pair) {
  const colon = pair.indexOf(':');
  return [pair.slice(0, Math.max(colon, 0)), pair.slice(colon + 1)];
}

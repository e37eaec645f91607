// The body of an ended stream, as events. Only what the gateway sends is understood: LF line ends, one space after the
// colon, complete blocks (https://html.spec.whatwg.org/multipage/server-sent-events.html has the whole grammar).

/** Returns the complete blocks of `body` that carry data, in order, as { id, type, data }. */
export function parse(body) {
  const events = [];
  let id;
  let type = 'message';
  let data;
  for (const line of body.split('\n')) {
    if (line === '') {
      if (data !== undefined) events.push({ id, type, data });
      id = undefined;
      type = 'message';
      data = undefined;
    } else if (line.startsWith('data: ')) {
      data = data === undefined ? line.slice(6) : `${data}\n${line.slice(6)}`;
    } else if (line.startsWith('id: ')) {
      id = line.slice(4);
    } else if (line.startsWith('event: ')) {
      type = line.slice(7);
    }
    // What is left: heartbeats (":"), "retry: N", and a block cut short at the end of the body.
  }
  return events;
}

/** Orders two ids of the form `<ms>-<seq>`: negative, zero or positive, as for sort(). */
export function compareIds(a, b) {
  const [aMs, aSeq] = a.split('-').map(Number);
  const [bMs, bSeq] = b.split('-').map(Number);
  return aMs - bMs || aSeq - bSeq;
}

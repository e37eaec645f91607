// A subscriber, who does as an EventSource does: whenever its stream ends, it comes back with the last id that it saw.

import { check, sleep } from 'k6';
import {
  deliveryLatency, eventsRead, gapEvents, missingEvents, repeatedEvents, streamCuts, streamResumes, streamTtfb,
  subscribersDone,
} from './metrics.js';
import { compareIds } from './sse.js';
import { LAST } from './publish.js';
import { LIVE, read } from './stream.js';

/** Before coming back to what was cut, half of it more or less. */
const RETRY_SECONDS = 1;

/** RESUME=no makes clients that forget their last id. What they miss must be counted: so it is shown that it can be. */
const RESUME = (__ENV.RESUME || 'yes') !== 'no';

/** What one subscriber saw of a topic that publishSteadily() fills. */
export class Diary {
  constructor() {
    this.cursor = undefined; // the last id
    this.next = undefined; // the number that must come next
    this.events = 0;
    this.missing = 0;
    this.repeated = 0;
    this.gaps = 0;
    this.timed = 0; // events whose latency was taken
    this.done = false;
  }

  /** Writes one event down; returns what was published, or undefined for the gateway's own events. */
  take({ id, type, data }) {
    const before = this.cursor;
    if (id !== undefined) this.cursor = id;
    if (type === 'tidegate.gap') this.count('gaps', 1, gapEvents);
    if (type.startsWith('tidegate.')) return undefined;

    const event = JSON.parse(data);
    this.events += 1;
    if (id === undefined || (before !== undefined && compareIds(before, id) >= 0) || event.n < this.next) {
      this.count('repeated', 1, repeatedEvents);
    } else if (this.next === undefined) {
      // The first: the one before it must not lie after where the stream began.
      if (before === undefined || compareIds(event.prev, before) > 0) this.count('missing', 1, missingEvents);
    } else {
      this.count('missing', event.n - this.next, missingEvents);
    }
    this.next = Math.max(this.next || 0, event.n + 1);
    if (type === LAST) this.done = true;
    return event;
  }

  /** At once, so that a run can end by it. */
  count(what, more, metric) {
    this[what] += more;
    if (more > 0) metric.add(more);
  }
}

/**
 * Follows `topic` to its last event, for `forSeconds` at the most. `chooseLimit` says after how many events the
 * subscriber leaves a stream by itself, `chooseAway` for how many seconds.
 */
export function follow(topic, forSeconds, { chooseLimit = () => undefined, chooseAway = () => 0 } = {}) {
  const diary = new Diary();
  const deadline = Date.now() + forSeconds * 1000;
  for (let streams = 0; !diary.done && Date.now() < deadline; streams += 1) {
    const limit = chooseLimit();
    const { left, cut } = readOnce(topic, diary, limit, (deadline - Date.now()) / 1000, RESUME || streams === 0);
    if (diary.done) break;
    if (cut) {
      streamCuts.add(1);
      sleep(RETRY_SECONDS * (0.5 + Math.random()));
    } else if (left) {
      sleep(chooseAway());
    }
  }
  // A threshold on what was never counted would not be judged.
  for (const metric of [missingEvents, repeatedEvents, gapEvents, streamCuts]) metric.add(0);
  subscribersDone.add(diary.done ? 1 : 0);
  const good = check(diary, {
    'subscriber: came to the last event': ({ done }) => done,
    'subscriber: no event missing': ({ missing }) => missing === 0,
    'subscriber: no event repeated': ({ repeated }) => repeated === 0,
    'subscriber: no gap told': ({ gaps }) => gaps === 0,
    ...(LIVE ? { 'subscriber: latency taken': ({ timed }) => timed > 0 } : {}),
  });
  if (!good) console.error(`${topic}: ${JSON.stringify(diary)}`);
}

/** Reads one stream. `left`: the subscriber had enough of it; `cut`: it ended although nobody wanted that. */
function readOnce(topic, diary, limit, forSeconds, resume) {
  const cursor = resume ? diary.cursor : undefined;
  let openedAt;
  let events = 0;
  const { status, clean, ttfb } = read(topic, cursor, { limit, seconds: forSeconds }, (event) => {
    const now = Date.now();
    if (event.type === 'tidegate.open') openedAt = now;
    const published = diary.take(event);
    if (published === undefined) return false;
    events += 1;
    // What was sent before the stream stood had to wait for its subscriber, not for the gateway.
    if (LIVE && openedAt !== undefined && published.at >= openedAt) {
      deliveryLatency.add(now - published.at);
      diary.timed += 1;
    }
    return diary.done || events >= limit;
  });
  const opened = status === 200 && openedAt !== undefined;
  eventsRead.add(events);
  streamResumes.add(opened && cursor !== undefined ? 1 : 0);
  if (ttfb !== undefined) streamTtfb.add(ttfb);
  if (status === 204) throw new Error(`${topic} has ended before this stream was opened: give it more time`);
  const left = events >= limit;
  // As a body each stream ends after a while, because it was asked to.
  return { left, cut: !left && (LIVE || !opened || !clean) };
}

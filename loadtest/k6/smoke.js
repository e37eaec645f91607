// Is the promise kept through the proxy? Streams against what was published, event by event, with stock k6.
//
// Stock k6 shows a stream's body only when the stream has ended, so every stream asks for `?limit=N` and the gateway
// ends it cleanly after N events. No check depends on timing:
//   replay  publishes first, then reads the history: whole, and in two halves joined by Last-Event-ID.
//   live    opens its streams and publishes until the last of them has its N events, whenever each became live.
//
// Options, by environment: see ../README.md.

import exec from 'k6/execution';
import http from 'k6/http';
import { check } from 'k6';
import { eventsRead, gapEvents, missingEvents, repeatedEvents, streamTtfb } from './lib/metrics.js';
import { pause, publish as publishOne } from './lib/publish.js';
import { BASE_URL, newRun, summaryTrendStats, systemTags, wholeNumber } from './lib/settings.js';
import { compareIds, parse } from './lib/sse.js';

const TOPICS = wholeNumber('TOPICS', 4, 1);
const STREAMS = wholeNumber('STREAMS', 40, TOPICS);
const EVENTS = wholeNumber('EVENTS', 100, 2);
const TTFB_P95_MS = wholeNumber('TTFB_P95_MS', 1000, 1);
const STREAM_TIMEOUT = __ENV.STREAM_TIMEOUT || '60s';

/** Between two events of a live topic: long enough that its streams overlap, short enough for a smoke test. */
const PUBLISH_PAUSE_MS = 5;
const EVENT_TYPE = 'smoke';

// Each topic's history is read twice (whole, and in halves); each live stream reads EVENTS.
const EVENTS_EXPECTED = (2 * TOPICS + STREAMS) * EVENTS;

export const options = {
  scenarios: {
    replay: { executor: 'per-vu-iterations', exec: 'replay', vus: TOPICS, iterations: 1, maxDuration: '5m' },
    live: { executor: 'per-vu-iterations', exec: 'live', vus: TOPICS, iterations: 1, maxDuration: '5m' },
  },
  thresholds: {
    // The first would also fail on a run that read nothing at all.
    events_read: [`count==${EVENTS_EXPECTED}`],
    missing_events: ['count==0'],
    repeated_events: ['count==0'],
    gap_events: ['count==0'],
    checks: ['rate==1'],
    stream_ttfb_ms: [`p(95)<${TTFB_P95_MS}`],
  },
  setupTimeout: '60s',
  systemTags,
  summaryTrendStats,
};

export async function setup() {
  const run = newRun();
  if (!(await publish(`k6-${run}-setup`, 0))) {
    exec.test.abort(`publishing to ${BASE_URL} failed: is the gateway up, and PUBLISH_KEY right?`);
  }
  return { run };
}

/** History: what was published before the stream was opened. */
export async function replay({ run }) {
  const topic = `k6-${run}-replay-${exec.scenario.iterationInTest}`;
  const idOf = new Map();
  for (let n = 0; n < EVENTS; n += 1) idOf.set(n, await publish(topic, n));

  const whole = await read(topic, { query: `since=earliest&limit=${EVENTS}`, limit: EVENTS, first: 0 }, idOf);
  if (whole.length === 0) return; // told above; the halves would only wait for their time-outs

  const half = Math.floor(EVENTS / 2);
  const head = await read(topic, { query: `since=earliest&limit=${half}`, limit: half, first: 0 }, idOf);
  const cursor = head.length > 0 ? head[head.length - 1].id : idOf.get(half - 1);
  const rest = { query: `limit=${EVENTS - half}`, limit: EVENTS - half, first: half, cursor };
  await read(topic, rest, idOf);
}

/** Live: subscribers that come while one publisher counts upward. */
export async function live({ run }) {
  const index = exec.scenario.iterationInTest;
  const topic = `k6-${run}-live-${index}`;
  const idOf = new Map();
  const streams = Math.floor(STREAMS / TOPICS) + (index < STREAMS % TOPICS ? 1 : 0);

  let open = streams;
  const responses = [];
  for (let s = 0; s < streams; s += 1) {
    const response = get(topic, `limit=${EVENTS}`);
    // get() settles even when the stream fails or times out, so the loop below always ends.
    responses.push(response.finally(() => { open -= 1; }));
  }
  for (let n = 0; open > 0; n += 1) {
    idOf.set(n, await publish(topic, n));
    await pause(PUBLISH_PAUSE_MS);
  }
  // Judged only now: an event can reach a stream before its publisher has the answer.
  for (const response of responses) judge(await response, topic, { limit: EVENTS }, idOf);
}

/** Publishes number `n` to `topic` and returns its id, or undefined when it was refused for good. */
function publish(topic, n) {
  return publishOne(topic, n, EVENT_TYPE, { topic, n });
}

/** Opens one stream; resolves when it has ended. */
function get(topic, query, cursor) {
  const headers = { Accept: 'text/event-stream' };
  if (cursor) headers['Last-Event-ID'] = cursor;
  const url = `${BASE_URL}/events?topic=${topic}&${query}`;
  return http.asyncRequest('GET', url, null, { headers, tags: { name: 'stream' }, timeout: STREAM_TIMEOUT });
}

async function read(topic, expected, idOf) {
  return judge(await get(topic, expected.query, expected.cursor), topic, expected, idOf);
}

/**
 * Compares one ended stream with what was published: `limit` events, numbered without a hole from `first` (live: from
 * whichever number it saw first), each with the id that its publisher was given. Returns the events of the topic.
 */
function judge(response, topic, { limit, first, cursor }, idOf) {
  const all = parse(response.body || '');
  const gaps = all.filter((event) => event.type === 'tidegate.gap');
  const events = all.filter((event) => !event.type.startsWith('tidegate.'));
  const numbers = events.map((event) => numberOf(event, topic));
  const seen = new Set(numbers);
  const from = first === undefined ? numbers[0] || 0 : first;
  let missing = 0;
  for (let n = from; n < from + limit; n += 1) missing += seen.has(n) ? 0 : 1;
  const repeated = numbers.length - seen.size;

  eventsRead.add(events.length);
  missingEvents.add(missing);
  repeatedEvents.add(repeated);
  gapEvents.add(gaps.length);
  streamTtfb.add(response.timings.waiting);

  const good = check(response, {
    'stream: status 200': (r) => r.status === 200,
    'stream: ended cleanly': (r) => r.error_code === 0,
    'stream: is an event stream': (r) => /^text\/event-stream\b/.test(r.headers['Content-Type'] || ''),
    'stream: exactly limit events': () => events.length === limit,
    'stream: no event missing': () => missing === 0,
    'stream: no event repeated': () => repeated === 0,
    'stream: no gap told': () => gaps.length === 0,
    'stream: ids only grow': () => grows(events, cursor),
    'stream: each id is the publisher\'s': () => events.every((event, i) => event.id === idOf.get(numbers[i])),
    'stream: each type is the publisher\'s': () => events.every((event) => event.type === EVENT_TYPE),
  });
  if (!good) {
    console.error(
      `${response.url} after ${cursor || 'no cursor'}: status ${response.status}, ${events.length} of ${limit} events, `
      + `${missing} missing, ${repeated} repeated, gaps ${JSON.stringify(gaps)} ${response.error || ''}`,
    );
  }
  return events;
}

/** The publisher's number of an event; NaN for data that was not published here. */
function numberOf(event, topic) {
  try {
    const data = JSON.parse(event.data);
    return data.topic === topic ? data.n : NaN;
  } catch (_) {
    return NaN;
  }
}

function grows(events, cursor) {
  let last = cursor || '0-0';
  return events.every(({ id }) => {
    const greater = id !== undefined && compareIds(last, id) < 0;
    last = id || last;
    return greater;
  });
}

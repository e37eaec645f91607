// How fast can be published over HTTP, and is what was answered in the log, once, and nothing else? Each publisher keeps
// to its times, whether answers come or not; so what waits behind a slow answer counts as slow, too. Then it reads its
// topic from the log, and compares.
//
// Options, by environment: see ../README.md.

import exec from 'k6/execution';
import { check } from 'k6';
import { eventsRead, missingEvents, publishLatency, repeatedEvents } from './lib/metrics.js';
import { pause, post, publish as publishOne } from './lib/publish.js';
import { BASE_URL, newRun, seconds, summaryTrendStats, systemTags, wholeNumber } from './lib/settings.js';
import { compareIds, parse } from './lib/sse.js';
import http from 'k6/http';

const TOPICS = wholeNumber('TOPICS', 10, 1);
const RATE = wholeNumber('RATE', 20, 1);
const HOLD = seconds('HOLD', '30s');
const BATCH = wholeNumber('BATCH', 1, 1);
const PUBLISH_P95_MS = wholeNumber('PUBLISH_P95_MS', 500, 1);
/** `log.events_max`: of a topic with more the beginning would be gone when it is read. */
const LOG_EVENTS_MAX = wholeNumber('LOG_EVENTS_MAX', 10000, 1);
const PADDING = 'x'.repeat(wholeNumber('PADDING', 100, 0));

const REQUESTS = Math.max(1, Math.floor((RATE * HOLD) / BATCH));
if (REQUESTS * BATCH > LOG_EVENTS_MAX) {
  throw new Error(`${REQUESTS * BATCH} events of each topic are more than the log keeps (LOG_EVENTS_MAX): lower RATE or HOLD`);
}

export const options = {
  scenarios: {
    publishers: { executor: 'per-vu-iterations', exec: 'publish', vus: TOPICS, iterations: 1, maxDuration: `${HOLD + 120}s` },
  },
  thresholds: {
    missing_events: ['count==0'],
    repeated_events: ['count==0'],
    events_read: [`count==${TOPICS * REQUESTS * BATCH}`],
    checks: ['rate==1'],
    publish_ms: [`p(95)<${PUBLISH_P95_MS}`],
  },
  setupTimeout: '120s',
  systemTags,
  summaryTrendStats,
};

export async function setup() {
  const run = newRun();
  if (!(await publishOne(`k6-${run}-setup`, 0, 'setup', {}))) {
    exec.test.abort(`publishing to ${BASE_URL} failed: is the gateway up, and PUBLISH_KEY right?`);
  }
  return { run };
}

export async function publish({ run }) {
  const topic = `k6-${run}-${exec.scenario.iterationInTest}`;
  const told = new Map(); // id -> number, as the answers say
  const start = Date.now();
  const underWay = [];
  for (let request = 0; request < REQUESTS; request += 1) {
    const due = start + (request * BATCH * 1000) / RATE;
    if (due > Date.now()) await pause(due - Date.now());
    underWay.push(send(topic, request, told).then(() => publishLatency.add(Date.now() - due)));
  }
  await Promise.all(underWay);
  compare(topic, told);
}

/** One request of BATCH events. */
async function send(topic, request, told) {
  const numbers = Array.from({ length: BATCH }, (_, line) => request * BATCH + line);
  const keyOf = (n) => `${topic}-${n}`;
  if (BATCH === 1) {
    const body = JSON.stringify({ n: request, padding: PADDING });
    const { accepted, response } = await post(`/events/${topic}`, body, keyOf(request));
    if (accepted) told.set(response.json('id'), request);
    return;
  }
  const lines = numbers.map((n) => JSON.stringify({ topic, data: { n, padding: PADDING }, idempotency_key: keyOf(n) }));
  const { accepted, response } = await post('/events', lines.join('\n'));
  if (accepted) response.json('events').forEach(({ id }, line) => told.set(id, numbers[line]));
}

/** The log of `topic` against what the answers said: the same ids, each with its own event. */
function compare(topic, told) {
  const ask = `${BASE_URL}/events?topic=${topic}&since=earliest&limit=${told.size}&max_age=30s`;
  const response = http.get(ask, { headers: { Accept: 'text/event-stream' }, tags: { name: 'stream' }, timeout: '60s' });
  const events = parse(response.body || '').filter(({ type }) => !type.startsWith('tidegate.'));
  const inLog = new Map(events.map(({ id, data }) => [id, JSON.parse(data).n]));
  let missing = 0;
  told.forEach((n, id) => { missing += inLog.get(id) === n ? 0 : 1; });
  const repeated = events.length - inLog.size + [...inLog.keys()].filter((id) => !told.has(id)).length;
  eventsRead.add(events.length);
  missingEvents.add(missing);
  repeatedEvents.add(repeated);
  const good = check(events, {
    'log: read as a stream': () => response.status === 200 && response.error_code === 0,
    'log: each event has the id of its answer': () => missing === 0,
    'log: nothing but what was answered': () => repeated === 0,
    'log: ids only grow': () => events.every(({ id }, i) => i === 0 || compareIds(events[i - 1].id, id) < 0),
  });
  if (!good) console.error(`${topic}: ${told.size} published, ${events.length} read, ${missing} missing, ${repeated} repeated`);
}

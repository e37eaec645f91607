// What a script with subscribers and publishers consists of.

import exec from 'k6/execution';
import { sleep } from 'k6';
import { publish, publishSteadily } from './publish.js';
import { follow } from './subscriber.js';
import { BASE_URL, newRun, seconds, summaryTrendStats, systemTags, wholeNumber } from './settings.js';
import { LIVE } from './stream.js';

/** Time for the last event to reach everybody. */
const GRACE_SECONDS = seconds('GRACE', '60s');

/**
 * `of`: defaults for STREAMS, TOPICS, RATE (events a second of each topic), RAMP and HOLD. Returns what they were set
 * to, k6's options, and the functions that a script exports.
 */
export function subscribersAndPublishers(of) {
  const topics = wholeNumber('TOPICS', of.topics, 1);
  const streams = wholeNumber('STREAMS', of.streams, 1);
  const rate = wholeNumber('RATE', of.rate, 1);
  const ramp = seconds('RAMP', of.ramp);
  const hold = seconds('HOLD', of.hold);
  const padding = 'x'.repeat(wholeNumber('PADDING', 100, 0));
  const all = ramp + hold;
  const maxDuration = `${all + 2 * GRACE_SECONDS}s`;
  const once = { executor: 'per-vu-iterations', iterations: 1, maxDuration };

  const options = {
    scenarios: {
      subscribers: { ...once, exec: 'subscribe', vus: streams },
      publishers: { ...once, exec: 'publishAll', vus: topics },
    },
    thresholds: {
      missing_events: ['count==0'],
      repeated_events: ['count==0'],
      gap_events: ['count==0'],
      // Each came to the end of its topic, having read more than that end: a run that shows nothing fails, too.
      subscribers_done: [`count==${streams}`],
      events_read: [`count>${streams}`],
      checks: ['rate==1'],
      stream_ttfb_ms: [`p(95)<${wholeNumber('TTFB_P95_MS', 1000, 1)}`],
      ...(LIVE ? { delivery_latency_ms: [`p(99)<${wholeNumber('LATENCY_P99_MS', 1000, 1)}`] } : {}),
    },
    setupTimeout: '120s',
    systemTags,
    summaryTrendStats,
  };

  return {
    options,
    streams,
    all,

    async setup() {
      const run = newRun();
      if (!(await publish(`k6-${run}-setup`, 0, 'setup', {}))) {
        exec.test.abort(`publishing to ${BASE_URL} failed: is the gateway up, and PUBLISH_KEY right?`);
      }
      console.log(LIVE ? 'k6/x/sse: events are seen when they come' : 'no k6/x/sse: streams are read in parts, as bodies');
      return { run };
    },

    /** The streams of all subscribers are opened evenly over the ramp. */
    subscribe({ run }, how) {
      const index = exec.scenario.iterationInTest;
      const wait = (ramp * index) / streams;
      sleep(wait);
      follow(`k6-${run}-${index % topics}`, all - wait + GRACE_SECONDS, how);
    },

    async publishAll({ run }) {
      await publishSteadily(`k6-${run}-${exec.scenario.iterationInTest}`, rate, all, padding);
    },
  };
}

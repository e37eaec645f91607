// Does it hold for hours? Most subscribers stay, every fifth leaves and comes back again and again; and the replicas
// themselves are watched, where METRICS names them: memory that grows without end, descriptors that are not given back.
// The run ends at the first event that is missing, repeated or told as lost.
//
// Options, by environment: see ../README.md.

import exec from 'k6/execution';
import http from 'k6/http';
import { check, sleep } from 'k6';
import { Trend } from 'k6/metrics';
import { subscribersAndPublishers } from './lib/scenario.js';
import { wholeNumber } from './lib/settings.js';

const plan = subscribersAndPublishers({ streams: 200, topics: 10, rate: 2, ramp: '1m', hold: '1h' });
const LEAVE_AFTER = wholeNumber('LEAVE_AFTER', 50, 1);
const METRICS = (__ENV.METRICS || '').split(',').filter((url) => url !== '');
const GROWTH_PERCENT_MAX = wholeNumber('GROWTH_PERCENT_MAX', 25, 1);

/** Resident memory at the end, in percent above what it was when a quarter of the time was over. */
const memoryGrowth = new Trend('replica_memory_growth_percent');
const residentMemory = new Trend('replica_resident_bytes');
const openFiles = new Trend('replica_open_files');

const WATCH_SECONDS = Math.min(15, Math.max(1, Math.floor(plan.all / 20)));

export const options = plan.options;
options.thresholds.stream_resumes = [`count>=${Math.floor(plan.streams / 5)}`];
for (const metric of ['missing_events', 'repeated_events', 'gap_events']) {
  options.thresholds[metric] = [{ threshold: 'count==0', abortOnFail: true }];
}
if (METRICS.length > 0) {
  const of = { executor: 'per-vu-iterations', iterations: 1, maxDuration: options.scenarios.subscribers.maxDuration };
  options.scenarios.replicas = { ...of, exec: 'watch', vus: METRICS.length };
  options.thresholds.replica_memory_growth_percent = [`max<${GROWTH_PERCENT_MAX}`];
}

export const { setup, publishAll } = plan;

export function subscribe(data) {
  const comesAndGoes = exec.scenario.iterationInTest % 5 === 0;
  const chooseLimit = () => 1 + Math.floor(Math.random() * LEAVE_AFTER);
  plan.subscribe(data, comesAndGoes ? { chooseLimit, chooseAway: () => 1 } : {});
}

/** One replica, by its own address. */
export function watch() {
  const url = METRICS[exec.scenario.iterationInTest];
  const tags = { replica: url };
  const start = Date.now();
  const over = () => (Date.now() - start) / 1000 / plan.all;
  let warm;
  let last;
  while (over() < 1) {
    const response = http.get(`${url}/metrics`, { tags: { name: 'metrics' } });
    last = value(response.body, 'process_resident_memory_bytes');
    check(last, { 'replica: tells its memory': (bytes) => bytes > 0 });
    residentMemory.add(last, tags);
    openFiles.add(value(response.body, 'process_open_fds'), tags);
    if (warm === undefined && over() > 0.25) warm = last;
    sleep(WATCH_SECONDS);
  }
  memoryGrowth.add((100 * (last - warm)) / warm, tags);
}

/** The value of a metric without labels; 0 if it is not there. */
function value(exposition, name) {
  const found = new RegExp(`^${name} (\\S+)$`, 'm').exec(exposition || '');
  return found ? Number(found[1]) : 0;
}

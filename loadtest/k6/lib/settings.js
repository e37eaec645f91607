// What all scripts are told by the environment, see ../../README.md.

export const BASE_URL = (__ENV.BASE_URL || 'http://127.0.0.1:8080').replace(/\/+$/, '');
export const PUBLISH_KEY = __ENV.PUBLISH_KEY || '';

/** Without `url`, which names each topic: in Prometheus every topic would be a series of its own. */
export const systemTags = ['status', 'method', 'name', 'scenario', 'check', 'error_code', 'expected_response'];

export const summaryTrendStats = ['min', 'med', 'p(95)', 'p(99)', 'max', 'count'];

export function wholeNumber(name, otherwise, least) {
  const text = __ENV[name] || String(otherwise);
  const number = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!(number >= least)) throw new Error(`${name} must be a whole number, ${least} or more, not "${text}"`);
  return number;
}

const SECONDS = { s: 1, m: 60, h: 3600 };

/** A time such as 30s, 5m or 1h, in seconds. */
export function seconds(name, otherwise) {
  const text = __ENV[name] || otherwise;
  const found = /^(\d+)([smh])$/.exec(text);
  if (!found) throw new Error(`${name} must be a time such as 30s, 5m or 1h, not "${text}"`);
  return Number(found[1]) * SECONDS[found[2]];
}

/** Part of the names of topics, so that no run reads what another has published. */
export function newRun() {
  return `${Date.now().toString(36)}${Math.floor(Math.random() * 1e6).toString(36)}`;
}

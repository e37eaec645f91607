// Publishing over HTTP, so that what was answered is published once.

import http from 'k6/http';
import { check } from 'k6';
import { setTimeout } from 'k6/timers';
import { BASE_URL, PUBLISH_KEY } from './settings.js';
import { publishLatency } from './metrics.js';

/** A publish without an answer is sent again under the same Idempotency-Key, so it cannot become two events. */
const TRIES = 10;
const RETRY_PAUSE_MS = 200;

/** The type of a topic's last event. */
export const LAST = 'last';
const TYPE = 'load';

/** Posts `body` to `path`; returns the answer, whatever it is. Without `key` it is a batch, whose lines have keys. */
export async function post(path, body, key) {
  const headers = { 'Content-Type': key === undefined ? 'application/x-ndjson' : 'application/json' };
  if (key !== undefined) headers['Idempotency-Key'] = key;
  if (PUBLISH_KEY) headers.Authorization = `Bearer ${PUBLISH_KEY}`;
  let response;
  for (let tries = 0; tries < TRIES; tries += 1) {
    const params = { headers, tags: { name: 'publish' }, timeout: '10s' };
    response = await http.asyncRequest('POST', `${BASE_URL}${path}`, body, params);
    if (response.status !== 0 && response.status < 500) break;
    await pause(RETRY_PAUSE_MS);
  }
  const accepted = response.status >= 200 && response.status < 300;
  check(response, { 'publish: accepted': () => accepted });
  if (!accepted) console.error(`publish ${path} ${key || ''}: status ${response.status} ${response.error || response.body}`);
  return { accepted, response };
}

/** Publishes one event and returns its id, or undefined when it was refused for good. */
export async function publish(topic, n, type, data, more = '') {
  const { accepted, response } = await post(`/events/${topic}?type=${type}${more}`, JSON.stringify(data), `${topic}-${n}`);
  return accepted ? response.json('id') : undefined;
}

/**
 * Publishes `rate` numbered events a second to `topic` for `forSeconds`, one after the other, then the last one, which
 * ends the topic. Each says when it was sent, and the id of the one before: so a subscriber can tell whether the first
 * one that it sees is the first after its cursor.
 */
export async function publishSteadily(topic, rate, forSeconds, padding = '') {
  const start = Date.now();
  const count = Math.max(1, Math.floor(rate * forSeconds));
  let prev = '0-0';
  for (let n = 0; n <= count; n += 1) {
    const due = start + (n * 1000) / rate;
    if (due > Date.now()) await pause(due - Date.now());
    const isLast = n === count;
    const event = { n, prev, at: Date.now(), padding };
    const id = await publish(topic, n, isLast ? LAST : TYPE, event, isLast ? '&end' : '');
    publishLatency.add(Date.now() - due);
    prev = id || prev;
  }
}

export function pause(ms) {
  return new Promise((resolve) => { setTimeout(resolve, ms); });
}

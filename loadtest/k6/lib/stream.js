// One stream, read event by event with k6/x/sse, or as a whole where k6 lacks it: stock k6 shows a body only when it has
// ended, so there the gateway is asked to end it (`?limit=`, `?max_age=`).

//
// The line below has k6 fetch a build with the extension where K6_AUTO_EXTENSION_RESOLUTION allows it.

'use k6 with k6/x/sse';

import http from 'k6/http';
import { BASE_URL } from './settings.js';
import { parse } from './sse.js';

/** SSE=yes: this k6 has the extension. It cannot be tried: a k6 that lacks a module fails, even if that is caught. */
const sse = __ENV.SSE === 'yes' ? require('k6/x/sse') : null;

/** Are events seen when they come? */
export const LIVE = sse !== null;

/** A stream that stock k6 reads ends after so many events, or so many seconds. */
const BODY_EVENTS = 1000;
const BODY_SECONDS = 2;

/**
 * Reads the stream of `topic` from `cursor` on, and shows each event to `take`, until the stream ends, `take` returns
 * true, or `seconds` are over. Returns { status, clean, ttfb }: whether the stream ended as HTTP wants it, and after
 * how many milliseconds it first said something.
 */
export function read(topic, cursor, { limit = BODY_EVENTS, seconds }, take) {
  const headers = { Accept: 'text/event-stream' };
  if (cursor) headers['Last-Event-ID'] = cursor;
  const url = `${BASE_URL}/events?topic=${topic}`;
  const params = { headers, tags: { name: 'stream' } };
  return LIVE ? readLive(url, params, seconds, take) : readBody(url, params, Math.min(limit, BODY_EVENTS), seconds, take);
}

function readBody(url, params, limit, seconds, take) {
  const age = Math.max(1, Math.ceil(Math.min(seconds, BODY_SECONDS)));
  const response = http.get(`${url}&limit=${limit}&max_age=${age}s`, { ...params, timeout: `${age + 30}s` });
  parse(response.body || '').some(take);
  return { status: response.status, clean: response.error_code === 0, ttfb: response.timings.waiting };
}

function readLive(url, params, seconds, take) {
  const asked = Date.now();
  let client;
  let ttfb;
  let clean = true;
  let closing = false;
  const close = () => {
    // Closing may report an error, whose handler must not close once more: the extension would wait for itself.
    if (closing) return;
    closing = true;
    client.close();
  };
  const response = sse.open(url, { ...params, timeout: `${Math.ceil(seconds * 1000)}ms` }, (opened) => {
    client = opened;
    client.on('event', ({ id, name, data }) => {
      if (ttfb === undefined) ttfb = Date.now() - asked;
      const isHeartbeat = !id && !name && !data; // to the extension a comment is an event, too
      if (!closing && !isHeartbeat && take({ id: id || undefined, type: name || 'message', data })) close();
    });
    client.on('error', () => {
      if (closing) return;
      clean = false;
      close();
    });
  });
  if (client) close(); // each stream has a connection of its own, which would stay open
  return { status: response.status || 0, clean: clean && !response.error, ttfb };
}

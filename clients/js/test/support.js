// What the tests stand on: the cluster that `deploy/local/cluster run` has started, and a relay that spoils the way to it.

import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import { promisify } from 'node:util';

export const { BASE_URL, TIDEGATE_ROOT } = process.env;
/** Longer than anything takes on a slow machine; nothing waits for it to pass. */
export const FAILSAFE_MS = 60_000;

export const EVENTS = `${BASE_URL}/events`;
/** A batch is one only by its Content-Type. */
export const NDJSON = { 'Content-Type': 'application/x-ndjson' };

let topics = 0;
/** A topic that no other test has. */
export const newTopic = () => `js-${process.pid}-${Date.now()}-${topics++}`;

/** Does something to parts of the cluster, such as `cluster('kill', 'r1')`. */
export const cluster = (...words) => promisify(execFile)(`${TIDEGATE_ROOT}/deploy/local/cluster`, words);

/** Publishes, until it is taken, once. Returns the id. */
export async function publish(topic, data, query = '') {
  const key = randomUUID();
  let id;
  await until(`${topic} is published`, async () => {
    const url = `${EVENTS}/${encodeURIComponent(topic)}${query}`;
    const answer = await fetch(url, { method: 'POST', body: data, headers: { 'Idempotency-Key': key } }).catch(() => undefined);
    const said = await answer?.json().catch(() => undefined);
    if (answer?.ok) ({ id } = said);
    return answer?.ok;
  });
  return id;
}

/** Publishes numbers, one after another. */
export async function count(topic, from, to) {
  for (let number = from; number < to; number++) await publish(topic, String(number));
}

/** Waits until a condition holds. */
export async function until(what, condition) {
  const end = performance.now() + FAILSAFE_MS;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > end) throw new Error(`never came about: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Collects what a client is told. */
export function ear(more = {}) {
  const heard = { events: [], gaps: [], lives: 0, controls: [], states: [], infos: [] };
  const options = {
    onEvent: (event) => { heard.events.push(event); },
    onGap: (gap) => { heard.gaps.push(gap); },
    onLive: () => { heard.lives += 1; },
    onControl: (name, data) => { heard.controls.push([name, data]); },
    onState: (state, info) => { heard.states.push(state); heard.infos.push({ state, ...info }); },
    ...more,
  };
  const datas = () => heard.events.map(({ data }) => data);
  return { heard, options, datas, shows: (count) => until(`${count} events`, () => heard.events.length >= count) };
}

/**
 * A server between client and cluster. `mode` says what it does with the next streams, and with what comes on those that are
 * open: `pass`; `hold`, which passes an answer on when it is complete; `freeze`, which passes nothing on, nor closes; or a
 * status with which it refuses. What `pages` says is answered before all that.
 */
export class Relay {
  mode = 'pass';
  /** What the next requests wait for. @type {Promise<unknown> | undefined} */
  gate;
  /** Of all streams that were asked for: path and headers. */
  asked = [];
  /** Passed on, of all streams. */
  heartbeats = 0;
  /** Answers of streams that are open. */
  open = new Set();
  #server;

  static async start(pages = () => undefined) {
    const relay = new Relay();
    relay.#server = http.createServer((request, answer) => {
      const page = pages(request.url);
      if (page) answer.writeHead(200, { 'Content-Type': page.type, 'Cache-Control': 'no-cache' }).end(page.body);
      else relay.#pass(request, answer).catch(() => answer.destroy());
    }).listen(0, '127.0.0.1');
    await once(relay.#server, 'listening');
    return relay;
  }

  get origin() { return `http://127.0.0.1:${this.#server.address().port}`; }
  get events() { return `${this.origin}/events`; }

  /** Breaks every stream off. */
  cut() { for (const answer of this.open) answer.destroy(); }

  stop() {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #pass(request, answer) {
    if (request.url.startsWith('/events')) this.asked.push({ url: request.url, headers: request.headers });
    await this.gate;
    if (typeof this.mode === 'number') {
      answer.writeHead(this.mode, { 'Content-Type': 'text/plain' }).end('refused');
      return;
    }
    const headers = { ...request.headers, host: new URL(BASE_URL).host };
    const onwards = http.request(BASE_URL + request.url, { method: request.method, headers, agent: false }, (came) => {
      this.open.add(answer);
      const held = [];
      const head = () => { if (!answer.headersSent) answer.writeHead(came.statusCode, came.headers); };
      if (this.mode === 'pass') head();
      came.on('data', (bytes) => {
        if (this.mode !== 'freeze') held.push(bytes);
        if (this.mode !== 'pass') return;
        head();
        answer.write(Buffer.concat(held.splice(0)));
        this.heartbeats += String(bytes).includes('tidegate.heartbeat');
      });
      came.on('end', () => { if (this.mode !== 'freeze') { head(); answer.end(Buffer.concat(held)); } });
      came.on('error', () => answer.destroy());
    });
    onwards.on('error', () => answer.destroy());
    answer.on('close', () => { this.open.delete(answer); onwards.destroy(); });
    request.pipe(onwards);
  }
}

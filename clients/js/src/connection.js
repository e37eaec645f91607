// One stream at a time over fetch, and when to open the next one.

import { EventStreamParser } from './parser.js';

/** What is added to the time that the gateway has told, at most, after failure upon failure. */
const BACKOFF_MS_MAX = 30_000;
/** No `retry:` is believed beyond it. */
const RETRY_MS_MAX = 3_600_000;
/**
 * Nor below this, which is also between the beginnings of two requests: whatever a server says, it is not asked hundreds of
 * times a second.
 */
const RETRY_MS_MIN = 100;
/** Of an answer that refuses a stream so many bytes are read, at most. */
const REFUSAL_BYTES_MAX = 64 << 10;
/** How long the silence may become that is borne before the pause between heartbeats is known. */
const SILENCE_MS_MAX = 360_000;
/** Life of a short answer, for networks that hold answers back until they are complete. */
const SHORT_SECONDS = 25;
/** A short answer that is still open so long after its first bytes is not held back. */
const FLOWS_MS = 1_000;
/** Events of a short answer that was asked for many, at most. One with so many does not wait for the next. */
const MANY = 100;

/** The request can never succeed, or was refused. */
export class TidegateError extends Error {
  /**
   * @param {string} message
   * @param {number} [status] of the answer, if there was one
   */
  constructor(message, status) {
    super(message);
    this.name = 'TidegateError';
    this.status = status;
  }
}

/**
 * What one answer came to.
 *
 * @typedef {object} Answer
 * @property {boolean} short it was asked to end by itself
 * @property {boolean} behind it was asked for many events at once
 * @property {boolean} resumes it began with a cursor, `since` or `last`
 * @property {boolean} opened a block of the gateway has come
 * @property {boolean} live it has caught up
 * @property {boolean} clean it was ended, not cut
 * @property {boolean} flows its bytes come as they are sent
 * @property {number} events how many it has shown
 * @property {'held' | 'silent' | undefined} why it was given up
 * @property {number} heartbeatAt when the last block came, if that was a heartbeat; else 0
 * @property {boolean} [renewed] it was refused, and other headers are to be tried
 * @property {number} [wait] the server asks for it, in milliseconds
 */

/** @typedef {import('./index.js').Settings} Settings */
/** @typedef {import('./index.js').Sink} Sink */

export class Connection {
  /** Where the next stream begins. @type {string | undefined} */
  cursor;
  /** @type {Settings} */
  #settings;
  /** @type {Sink} */
  #sink;
  #retry = 3_000;
  #failures = 0;
  /** When the next request may begin. */
  #notBefore = 0;
  /** Whether short answers are asked for. */
  #held = false;
  /** Whether the last short answer did not get as far as the head. */
  #behind = false;
  #stopped = false;
  /** Whether the last answer was a refusal. */
  #renewed = false;
  /** Why the last stream broke, if not by the server's will. @type {unknown} */
  #why;
  /** @type {number} */
  #silence;
  /** @type {AbortController | undefined} */
  #abort;
  /** @type {(() => void) | undefined} */
  #wake;

  /**
   * @param {Settings} settings
   * @param {Sink} sink
   * @param {string | undefined} cursor
   */
  constructor(settings, sink, cursor) {
    this.#settings = settings;
    this.#sink = sink;
    this.cursor = cursor;
    this.#silence = 3 * settings.heartbeat;
  }

  /** Goes on until all topics have ended, or it is stopped. Throws what is for good. */
  async run() {
    const online = () => this.#wake?.();
    globalThis.addEventListener?.('online', online);
    try {
      while (!this.#stopped) {
        const early = this.#notBefore - performance.now();
        if (early > 0) await this.#sleep(early);
        if (this.#stopped) return;
        this.#notBefore = performance.now() + RETRY_MS_MIN;
        const wait = await this.#open();
        if (wait === undefined || this.#stopped) return;
        if (wait > 0) await this.#pause(wait);
      }
    } finally {
      globalThis.removeEventListener?.('online', online);
    }
  }

  stop() {
    this.#stopped = true;
    this.#abort?.abort();
    this.#wake?.();
  }

  /** @param {number} wait */
  async #pause(wait) {
    this.#sink.state('waiting', { short: this.#held, wait, error: this.#why });
    await this.#sleep(wait);
  }

  /** @param {number} ms */
  async #sleep(ms) {
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => { clearTimeout(timer); resolve(undefined); };
    });
    this.#wake = undefined;
  }

  /** One stream, from the request to its end. Returns when to open the next, in milliseconds; nothing at the end of all. */
  async #open() {
    const { since, last } = this.#settings;
    /** @type {Answer} */
    const answer = {
      short: this.#held, behind: this.#behind, resumes: Boolean(this.cursor ?? since ?? last), opened: false, live: false,
      clean: false, flows: false, events: 0, why: undefined, heartbeatAt: 0,
    };
    this.#sink.state('connecting', { short: answer.short });
    this.#why = undefined;
    try {
      if (await this.#ask(answer)) return undefined;
    } catch (error) {
      if (this.#stopped) return undefined;
      if (error instanceof TidegateError) throw error;
      this.#why = error;
      // What else may go wrong is the network, or a function that gives headers or a ticket: all may be well again.
    }
    return this.#wait(answer);
  }

  /**
   * Whether all topics have ended.
   *
   * @param {Answer} answer
   */
  async #ask(answer) {
    const { headers, init, fetch, patience } = this.#settings;
    const given = typeof headers === 'function' ? await headers() : headers;
    // Each request has its own: the one before was used.
    const ticket = await this.#settings.ticket?.();
    if (this.#stopped) return false;
    const abort = this.#abort = new AbortController();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const guard = (/** @type {number} */ ms, /** @type {Answer['why']} */ why = undefined) => {
      clearTimeout(timer);
      timer = ms ? setTimeout(() => { answer.why = why; abort.abort(); }, ms) : undefined;
    };
    try {
      guard(answer.short ? SHORT_SECONDS * 1000 + patience : patience, 'held');
      const sent = new Headers(given);
      sent.set('Accept', 'text/event-stream');
      const response = await fetch(this.#url(answer, ticket), { cache: 'no-store', ...init, headers: sent, signal: abort.signal });
      if (response.status === 204) return true;
      if (response.status !== 200 || !response.headers.get('Content-Type')?.startsWith('text/event-stream')) {
        await this.#refused(response, answer);
      } else if (response.body) {
        await this.#read(response.body.getReader(), answer, guard);
      }
    } finally {
      guard(0);
      abort.abort();
    }
    return false;
  }

  /**
   * @param {Answer} answer
   * @param {string} [ticket]
   */
  #url(answer, ticket) {
    const { url, topics, types, since, last } = this.#settings;
    const asked = new URL(url);
    const query = asked.searchParams;
    for (const topic of topics) query.append('topic', topic);
    for (const type of types) query.append('type', type);
    query.set('envelope', '');
    query.set('heartbeat', 'event');
    if (ticket) query.set('ticket', ticket);
    // As a parameter: a header would have a browser ask another origin for leave first.
    if (this.cursor) query.set('last_event_id', this.cursor);
    else if (since !== undefined) query.set('since', since);
    else if (last !== undefined) query.set('last', String(last));
    if (answer.short) {
      query.set('limit', answer.behind ? String(MANY) : '1');
      query.set('max_age', answer.behind ? '1s' : `${SHORT_SECONDS}s`);
    }
    return asked.href;
  }

  /**
   * Throws if it is for good.
   *
   * @param {Response} response
   * @param {Answer} answer
   */
  async #refused(response, answer) {
    const { status } = response;
    const isFatal = status >= 400 && status < 500 && ![408, 425, 429].includes(status);
    if (isFatal) {
      const text = await beginning(response);
      let detail = text.slice(0, 200);
      try { detail = JSON.parse(text).detail ?? detail; } catch { /* not the gateway's own answer */ }
      const error = new TidegateError(`${status}: ${detail}`, status);
      if (status === 400 || !(await this.#settings.onRefused?.(error))) throw error;
    }
    // Other headers are tried at once, but not again and again.
    answer.renewed = isFatal && !this.#renewed;
    this.#renewed = isFatal;
    answer.wait = Number(response.headers.get('Retry-After')) * 1000 || undefined;
  }

  /**
   * @param {ReadableStreamDefaultReader<Uint8Array>} reader
   * @param {Answer} answer
   * @param {(ms: number, why?: Answer['why']) => void} guard
   */
  async #read(reader, answer, guard) {
    const parser = new EventStreamParser();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let flows;
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        flows ??= setTimeout(() => { answer.flows = answer.short && !answer.behind; }, FLOWS_MS);
        // Silence is the network's only while bytes are waited for, not while the page takes its time.
        if (!answer.short) guard(0);
        const blocks = parser.feed(value);
        this.#retry = Math.min(Math.max(parser.retry ?? this.#retry, RETRY_MS_MIN), RETRY_MS_MAX);
        for (const block of blocks) {
          await this.#take(block, answer);
          if (this.#stopped) return;
        }
        if (!answer.short) guard(this.#silence, 'silent');
      }
      answer.clean = true;
    } finally {
      clearTimeout(flows);
    }
  }

  /**
   * @param {import('./parser.js').Block} block
   * @param {Answer} answer
   */
  async #take({ type, data, id }, answer) {
    const heartbeatAt = answer.heartbeatAt;
    answer.heartbeatAt = 0;
    if (data !== undefined) {
      if (!answer.opened) this.#opened(answer);
      if (type === 'tidegate.heartbeat') this.#heartbeat(answer, heartbeatAt);
      else await this.#show(type, data, id || undefined, answer);
    }
    if (id) {
      this.cursor = id;
      this.#sink.cursor(id);
    }
  }

  /** @param {Answer} answer */
  #opened(answer) {
    answer.opened = true;
    this.#failures = 0;
    this.#renewed = false;
    this.#sink.state('catching-up', { short: answer.short });
  }

  /**
   * Two heartbeats with nothing between them are one pause apart.
   *
   * @param {Answer} answer
   * @param {number} before
   */
  #heartbeat(answer, before) {
    answer.heartbeatAt = performance.now();
    if (before) this.#silence = Math.max(3 * (answer.heartbeatAt - before), 1_000);
  }

  /**
   * @param {string} type
   * @param {string} data
   * @param {string | undefined} id
   * @param {Answer} answer
   */
  async #show(type, data, id, answer) {
    if (!type.startsWith('tidegate.')) {
      answer.events += 1;
      await this.#sink.event({ ...envelope(type, data), cursor: id ?? this.cursor });
      return;
    }
    const name = type.slice(9);
    const said = JSON.parse(data);
    if (typeof said !== 'object' || said === null) throw new Error('no JSON object');
    if (name === 'gap' && !(isText(said.topic) && isText(said.reason))) throw new Error('a gap without a topic or a reason');
    if (name === 'gap') await this.#sink.gap({ ...said, cursor: id ?? this.cursor });
    else await this.#sink.control(name, said);
    if (!answer.live && (name === 'live' || (name === 'open' && !answer.resumes))) {
      answer.live = true;
      await this.#sink.live(id ?? this.cursor);
    }
  }

  /**
   * When to open the next stream, in milliseconds.
   *
   * @param {Answer} answer
   */
  #wait(answer) {
    if (answer.short) {
      // A short answer that was not held back, or did not come either: try a stream again.
      this.#held = answer.opened && answer.clean && !answer.flows;
      this.#behind = answer.resumes && !answer.live;
      if (answer.opened && answer.clean) {
        if (answer.events >= MANY) this.#notBefore = 0;
        return 0;
      }
    } else if (answer.why) {
      this.#held = true;
      this.#behind = false;
      if (answer.why === 'silent') this.#silence = Math.min(2 * this.#silence, SILENCE_MS_MAX);
      return 0;
    }
    if (answer.opened) {
      // After an end that is none of a cut, the next answer tells whether it was the end of all topics.
      return answer.clean && answer.events ? Math.random() * Math.min(this.#retry, 500) : this.#retry;
    }
    // A stream of nothing but `retry:` has drawn the time for this client already.
    if (answer.clean) return this.#retry;
    if (answer.renewed) return 0;
    const least = Math.min(Math.max(this.#retry, answer.wait ?? 0), RETRY_MS_MAX);
    this.#failures = Math.min(this.#failures + 1, 16);
    return least + Math.random() * Math.min(BACKOFF_MS_MAX, this.#retry * 2 ** (this.#failures - 1));
  }
}

/**
 * @param {string} type
 * @param {string} data
 */
function envelope(type, data) {
  try {
    const event = JSON.parse(data);
    if (!type && isText(event.topic) && (event.id === null || isText(event.id))) return event;
  } catch { /* told below */ }
  throw new TidegateError('events come without an envelope: the gateway is too old for this client');
}

/** @param {unknown} value */
function isText(value) { return typeof value === 'string'; }

/**
 * What an answer says, as far as anybody reads it.
 *
 * @param {Response} response
 */
async function beginning(response) {
  const reader = response.body?.getReader();
  const decoder = new TextDecoder();
  let text = '';
  let bytes = 0;
  try {
    while (reader && bytes < REFUSAL_BYTES_MAX) {
      const { done, value } = await reader.read();
      if (done) break;
      bytes += value.length;
      text += decoder.decode(value, { stream: true });
    }
  } catch { /* cut: what has come is what it says */ }
  return text;
}

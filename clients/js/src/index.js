// Tidegate for pages and programs. What a stream is made of stands in the gateway's README, "Subscribe".

import { Connection, TidegateError } from './connection.js';
import { isLater } from './ids.js';
import { Tabs } from './tabs.js';

export { TidegateError };
export { EventStreamParser } from './parser.js';

/** Events that wait for the loop over them, before the stream is not read on. */
const QUEUE_MAX = 100;
/** The same for one of the tabs that share a stream: it holds nobody back, and is told of a gap. */
const TOLD_QUEUE_MAX = 10_000;
const DEFAULT_HEARTBEAT_MS = 15_000;
const DEFAULT_PATIENCE_MS = 8_000;

/**
 * @typedef {import('../index.d.ts').Options} Options
 * @typedef {import('../index.d.ts').TidegateEvent} TidegateEvent
 * @typedef {import('../index.d.ts').Gap} Gap
 * @typedef {import('../index.d.ts').State} State
 * @typedef {import('../index.d.ts').StateInfo} StateInfo
 */

/**
 * What a connection goes by.
 *
 * @typedef {object} Settings
 * @property {URL} url
 * @property {string[]} topics
 * @property {string[]} types
 * @property {string | undefined} since
 * @property {number | undefined} last
 * @property {Options['headers']} headers
 * @property {Options['ticket']} ticket
 * @property {RequestInit | undefined} init
 * @property {typeof globalThis.fetch} fetch
 * @property {number} heartbeat
 * @property {number} patience
 * @property {Options['onRefused']} onRefused
 */

/**
 * Whom a connection tells. It waits for what the first four return.
 *
 * @typedef {object} Sink
 * @property {(event: TidegateEvent) => unknown} event
 * @property {(gap: Gap) => unknown} gap
 * @property {(name: string, data: any) => unknown} control
 * @property {(cursor: string | undefined) => unknown} live
 * @property {(cursor: string) => void} cursor
 * @property {(state: State, info: StateInfo) => void} state
 */

/** @typedef {{ kind: 'event' | 'gap' | 'control' | 'live' | 'cursor' | 'over', value: any, name?: string }} Item */

/** Events may be missing, and nobody listens for it (`onGap`). */
export class GapError extends Error {
  /** @param {Gap} gap */
  constructor(gap) {
    super(`events of ${gap.topic} may be missing: ${gap.reason}`);
    this.name = 'GapError';
    this.gap = gap;
  }
}

/** Reads topics until they have ended or it is closed. */
export class Tidegate {
  /** @type {Options} */
  #options;
  /** @type {Settings} */
  #settings;
  /** @type {State} */
  #state = 'connecting';
  /** How the stream is had. @type {StateInfo} */
  #how = { short: false };
  /** @type {string | undefined} */
  #cursor;
  #key;
  /** The last id of each topic. @type {Map<string, string>} */
  #seen = new Map();
  /** @type {Connection | Tabs | undefined} */
  #running;
  /** @type {Item[]} */
  #queue = [];
  /** Wakes who waits for something in the queue, or for room in it. */
  #changed = new EventTarget();
  /** There is room in the queue again. @type {Promise<void> | undefined} */
  #room;
  /** The cursor of the last that was received, though perhaps not handled. @type {string | undefined} */
  #received;
  /** Nothing more is received. */
  #isOver = false;
  /** Nor is anything left to be handled. */
  #isDone = false;
  /** @type {unknown} */
  #error;
  #unlisten = () => {};

  /** @param {Options} options */
  constructor(options) {
    const { url, topics = [], types = [], since, last, signal } = options;
    if (typeof topics === 'string' || typeof types === 'string') throw new TypeError('topics and types are lists');
    this.#options = options;
    this.#settings = {
      url: new URL(url, globalThis.location?.href),
      topics: [...topics], types: [...types], since, last,
      headers: options.headers, ticket: options.ticket, init: options.init, fetch: options.fetch ?? globalThis.fetch.bind(globalThis),
      heartbeat: options.heartbeat ?? DEFAULT_HEARTBEAT_MS, patience: options.patience ?? DEFAULT_PATIENCE_MS,
      onRefused: options.onRefused,
    };
    this.#key = options.name ?? `tidegate ${this.#settings.url} ${JSON.stringify([[...topics].sort(), [...types].sort()])}`;
    this.#cursor = this.#received = options.cursor ?? stored(options.storage, this.#key);
    if (signal?.aborted) {
      this.close();
      return;
    }
    const close = () => this.close();
    signal?.addEventListener('abort', close);
    const resting = this.#restInCache();
    this.#unlisten = () => { signal?.removeEventListener('abort', close); resting(); };
    // What the caller does with it right away comes first.
    queueMicrotask(() => this.#start());
    if (options.onEvent) queueMicrotask(() => this.#callForEach());
  }

  /** Where a stream would have to begin to show what was not handled yet: to be kept, and given as `cursor`. */
  get cursor() { return this.#cursor; }

  /** @returns {State} */
  get state() { return this.#state; }

  /** Ends it. No callback is called any more. */
  close() {
    if (this.#isDone) return;
    this.#queue = [];
    this.#end('closed');
    this.#handle(/** @type {Item} */ (this.#queue.pop()));
  }

  /** @returns {AsyncIterableIterator<TidegateEvent>} */
  [Symbol.asyncIterator]() {
    if (this.#options.onEvent) throw new TypeError('events go to onEvent, or to a loop');
    return {
      next: () => this.#next(),
      return: async () => { this.close(); return { done: true, value: undefined }; },
      [Symbol.asyncIterator]() { return this; },
    };
  }

  // --- running ---

  async #start() {
    if (this.#isOver) return;
    const isShared = this.#options.shared && typeof BroadcastChannel === 'function' && globalThis.navigator?.locks;
    const running = isShared
      ? new Tabs(this.#settings, this.#sink(), this.#received, this.#key)
      : new Connection(this.#settings, this.#sink(), this.#received);
    this.#running = running;
    try {
      await running.run();
      if (this.#running === running) this.#end('ended');
    } catch (error) {
      if (this.#running === running) this.#end('failed', error);
    }
  }

  #stop() {
    const running = this.#running;
    this.#running = undefined;
    running?.stop();
  }

  /** A page that the browser keeps holds neither stream nor lock, and goes on when it is shown again. */
  #restInCache() {
    const stop = () => this.#stop();
    const start = (/** @type {PageTransitionEvent} */ { persisted }) => { if (persisted) this.#start(); };
    globalThis.addEventListener?.('pagehide', stop);
    globalThis.addEventListener?.('pageshow', start);
    return () => {
      globalThis.removeEventListener?.('pagehide', stop);
      globalThis.removeEventListener?.('pageshow', start);
    };
  }

  /**
   * @param {'closed' | 'ended' | 'failed'} state
   * @param {unknown} [error]
   */
  #end(state, error) {
    this.#isOver = true;
    this.#stop();
    this.#unlisten();
    this.#put({ kind: 'over', value: { state, error } });
  }

  // --- what comes ---

  /** @returns {Sink} */
  #sink() {
    return {
      event: (event) => (this.#isNew(event) ? this.#take({ kind: 'event', value: event }) : undefined),
      gap: (gap) => {
        const seen = this.#seen.get(gap.topic ?? '');
        // The log was begun anew: its ids, too, may be lower.
        if (seen && gap.to && isLater(seen, gap.to)) this.#seen.set(/** @type {string} */ (gap.topic), gap.to);
        return this.#take({ kind: 'gap', value: gap });
      },
      control: (name, data) => this.#take({ kind: 'control', value: data, name }),
      live: (cursor) => this.#take({ kind: 'live', value: { cursor } }),
      cursor: (cursor) => {
        this.#received = cursor;
        this.#take({ kind: 'cursor', value: cursor });
      },
      state: (state, info) => {
        if (this.#isOver) return;
        if (state === 'waiting') this.#queue = this.#queue.filter(({ kind }) => kind !== 'live');
        this.#how = { short: info.short, leader: info.leader };
        // One short answer after another is one stream to whoever looks at it.
        if (!(info.short && this.#state === 'live' && state !== 'waiting')) this.#tell(state, info);
      },
    };
  }

  /** @param {TidegateEvent} event */
  #isNew({ topic, id }) {
    if (id === null) return true;
    const seen = this.#seen.get(topic);
    if (seen && !isLater(id, seen)) return false;
    this.#seen.set(topic, id);
    return true;
  }

  /**
   * Whoever waits for the answer is held back while there is much to be handled.
   *
   * @param {Item} item
   */
  #take(item) {
    if (this.#isOver) return undefined;
    // Of two cursors with nothing between them only the later one counts.
    if (item.kind === 'cursor' && this.#queue.at(-1)?.kind === 'cursor') this.#queue.pop();
    if (this.#queue.length >= TOLD_QUEUE_MAX) {
      const gap = { topic: null, reason: 'overflow', from: null, to: null, cursor: this.#received };
      this.#queue = [{ kind: 'gap', value: gap }];
    }
    this.#put(item);
    return this.#queue.length < QUEUE_MAX ? undefined : (this.#room ??= this.#untilRoom());
  }

  /** @param {Item} item */
  #put(item) {
    this.#queue.push(item);
    this.#changed.dispatchEvent(new Event('change'));
  }

  async #untilRoom() {
    while (this.#queue.length >= QUEUE_MAX && !this.#isOver) await this.#change();
    this.#room = undefined;
  }

  #change() {
    return new Promise((resolve) => { this.#changed.addEventListener('change', resolve, { once: true }); });
  }

  // --- what is handled ---

  /**
   * All but events.
   *
   * @param {Item} item
   * @returns {unknown}
   */
  #handle({ kind, value, name }) {
    const { onEvent, onGap, onLive, onControl } = this.#options;
    if (kind === 'cursor') return this.#keep(value);
    if (kind === 'over') return this.#done(value);
    if (kind === 'control') return this.#call(onControl, name, value);
    if (kind === 'live') {
      const wasLive = this.#state === 'live';
      this.#tell('live', this.#how);
      return wasLive ? undefined : this.#call(onLive, value);
    }
    if (onGap) return this.#call(onGap, value);
    if (onEvent) console.error(new GapError(value));
    else throw new GapError(value);
  }

  /** @param {{ state: State, error: unknown }} how */
  #done({ state, error }) {
    this.#isDone = true;
    this.#error = error;
    this.#tell(state, { ...this.#how, error });
    if (error && this.#options.onEvent && !this.#options.onState) console.error(error);
  }

  /**
   * A callback that fails must not end the stream.
   *
   * @param {((...values: any[]) => unknown) | undefined} callback
   * @param {any[]} values
   */
  #call(callback, ...values) {
    try {
      const answer = callback?.(...values);
      return answer instanceof Promise ? answer.catch(report) : undefined;
    } catch (error) {
      report(error);
    }
  }

  /** @param {string} cursor */
  #keep(cursor) {
    this.#cursor = cursor;
    try { this.#options.storage?.setItem(this.#key, cursor); } catch { /* full, or forbidden */ }
  }

  /**
   * @param {State} state
   * @param {StateInfo} info
   */
  #tell(state, info) {
    const isNews = state !== this.#state || state === 'waiting';
    this.#state = state;
    if (isNews) this.#call(this.#options.onState, state, info);
  }

  // --- events, one by one ---

  /** @returns {Promise<IteratorResult<TidegateEvent>>} */
  async #next() {
    for (;;) {
      // Right after each event stands its cursor: who asks for the next one is done with it.
      const item = this.#queue.shift();
      if (item) this.#changed.dispatchEvent(new Event('change'));
      if (item?.kind === 'event') return { done: false, value: item.value };
      if (item) await this.#handle(item);
      else if (this.#error) throw this.#error;
      else if (this.#isDone) return { done: true, value: undefined };
      else await this.#change();
    }
  }

  async #callForEach() {
    const { onEvent } = this.#options;
    try {
      for (let next = await this.#next(); !next.done; next = await this.#next()) await this.#call(onEvent, next.value);
    } catch (error) {
      // It was told when it was handled.
      if (error !== this.#error) report(error);
    }
  }
}

/**
 * Storage may be forbidden to a page, and then costs no more than to resume across a reload.
 *
 * @param {Options['storage']} storage
 * @param {string} key
 */
function stored(storage, key) {
  try { return storage?.getItem(key) ?? undefined; } catch { return undefined; }
}

/** @param {unknown} error */
function report(error) { console.error(error); }

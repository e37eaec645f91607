// One stream for all tabs of a browser. Whoever holds the lock reads, and tells the others.

import { Connection } from './connection.js';
import { hasReached } from './ids.js';

/** Messages that wait until a tab's own stream has reached them, at most. */
const HELD_BACK_MAX = 10_000;

/** @typedef {import('./index.js').Settings} Settings */
/** @typedef {import('./index.js').Sink} Sink */
/** @typedef {{ kind: string, from: string, to?: string, value?: any, info?: any }} Message */

/**
 * A tab that comes with a cursor, and finds another one reading, reads what it has missed on a short stream of its own. That
 * one ends when it has reached what the leader has shown; what the leader says meanwhile waits.
 */
export class Tabs {
  /** @type {Settings} */
  #settings;
  /** @type {Sink} */
  #sink;
  #name;
  #me = crypto.getRandomValues(new Uint32Array(2)).join('-');
  #channel;
  #left = new AbortController();
  #leads = false;
  #follows = false;
  /** Whether the leader is. */
  #isLive = false;
  /** The stream of this tab. @type {Connection | undefined} */
  #own;
  /** Where the leader stood when it last said so; what it has said since is held back. @type {string | undefined} */
  #target;
  /** @type {Message[]} */
  #heldBack = [];
  /** @type {string | undefined} */
  #cursor;

  /**
   * @param {Settings} settings
   * @param {Sink} sink
   * @param {string | undefined} cursor
   * @param {string} name
   */
  constructor(settings, sink, cursor, name) {
    this.#settings = settings;
    this.#sink = sink;
    this.#cursor = cursor;
    this.#name = name;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => this.#heard(data);
  }

  /** Goes on until all topics have ended, or it is stopped. Throws what is for good. */
  async run() {
    const { signal } = this.#left;
    try {
      const lead = async (/** @type {Lock | null} */ lock) => (lock ? this.#lead() : false);
      if (await navigator.locks.request(this.#name, { ifAvailable: true }, lead)) return;
      if (signal.aborted) return;
      const led = navigator.locks.request(this.#name, { signal }, lead);
      led.catch(() => {}); // Waited for below, unless what is below fails before.
      await Promise.race([led, this.#follow()]);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      this.stop();
    }
  }

  stop() {
    this.#left.abort();
    this.#own?.stop();
    this.#channel.close();
  }

  // --- the leader ---

  async #lead() {
    if (this.#left.signal.aborted) return true;
    this.#leads = true;
    this.#own?.stop();
    // Held back were later events than those which this tab is to show next: its stream shows them again.
    this.#heldBack = [];
    this.#own = new Connection(this.#settings, this.#told(), this.#cursor);
    await this.#own.run();
    return true;
  }

  /** The leader's own sink, of which the others hear first: a page that takes its time holds none of them back. @returns {Sink} */
  #told() {
    const sink = this.#sink;
    return {
      event: (event) => { this.#say('event', event); sink.event(event); },
      gap: (gap) => { this.#say('gap', gap); sink.gap(gap); },
      control: (name, data) => { this.#say('control', data, name); sink.control(name, data); },
      live: (cursor) => {
        this.#isLive = true;
        this.#say('here', { cursor: this.#cursor ?? cursor, live: true });
        sink.live(cursor);
      },
      cursor: (cursor) => {
        this.#cursor = cursor;
        this.#say('cursor', cursor);
        sink.cursor(cursor);
      },
      state: (state, info) => {
        this.#isLive &&= info.short && state !== 'waiting';
        this.#say('state', state, { ...info, error: info.error && String(info.error) });
        sink.state(state, { ...info, leader: true });
      },
    };
  }

  // --- a follower ---

  /** Resolves at the end of all topics, and rejects what is for good. */
  async #follow() {
    const { since, last } = this.#settings;
    this.#follows = true;
    if (this.#cursor === undefined && since === undefined && last === undefined) {
      this.#say('hello');
      return new Promise(() => {});
    }
    const sink = this.#sink;
    const own = this.#own = new Connection(this.#settings, {
      ...sink,
      cursor: (cursor) => {
        this.#cursor = cursor;
        sink.cursor(cursor);
        this.#meet();
      },
      live: () => this.#say('hello'),
    }, this.#cursor);
    await own.run();
    // Else it was stopped, since it has met the leader or leads itself.
    if (this.#own !== own) await new Promise(() => {});
  }

  /** Ends the stream of its own if that has shown all that the leader had shown when it said where it stands. */
  #meet() {
    if (this.#leads || !this.#own || !this.#target || !hasReached(this.#cursor, this.#target)) return;
    this.#own.stop();
    this.#own = undefined;
    for (const message of this.#heldBack.splice(0)) this.#show(message);
    if (this.#isLive) this.#sink.live(this.#cursor);
  }

  /** @param {Message} message */
  #heard(message) {
    const { kind, from, to, value } = message;
    if (this.#leads) {
      if (kind === 'hello') this.#say('here', { cursor: this.#cursor, live: this.#isLive }, undefined, from);
    } else if (kind === 'here') {
      if (this.#follows && (to === undefined || to === this.#me)) this.#here(value);
    } else if (!this.#follows || kind === 'hello') {
      // What comes before this tab knows where it begins is shown by its own stream.
    } else if (!this.#own) {
      this.#show(message);
    } else if (this.#target) {
      // An event without an id has come by the own stream as well.
      if (kind !== 'event' || value.id !== null) this.#heldBack.push(message);
      if (this.#heldBack.length > HELD_BACK_MAX) {
        this.#heldBack = [];
        this.#target = undefined;
        this.#say('hello');
      }
    }
  }

  /** @param {{ cursor: string | undefined, live: boolean }} leader */
  #here({ cursor, live }) {
    this.#isLive = live;
    if (this.#own) {
      this.#target = cursor;
      this.#heldBack = [];
      this.#meet();
      return;
    }
    if (cursor !== undefined && this.#cursor === undefined) {
      this.#cursor = cursor;
      this.#sink.cursor(cursor);
    }
    if (live) this.#sink.live(this.#cursor);
  }

  /** @param {Message} message */
  #show({ kind, value, info }) {
    if (kind === 'event') this.#sink.event(value);
    else if (kind === 'gap') this.#sink.gap(value);
    else if (kind === 'control') this.#sink.control(info, value);
    else if (kind === 'state') this.#sink.state(value, { ...info, leader: false });
    else if (kind === 'cursor') {
      this.#cursor = value;
      this.#sink.cursor(value);
    }
  }

  /**
   * @param {string} kind
   * @param {any} [value]
   * @param {any} [info]
   * @param {string} [to]
   */
  #say(kind, value, info, to) {
    if (!this.#left.signal.aborted) this.#channel.postMessage({ kind, from: this.#me, to, value, info });
  }
}

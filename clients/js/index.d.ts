/** One event. `data` is a value if the event's data is JSON that every parser takes, else a string. */
export type TidegateEvent<T = any> = {
  topic: string;
  /** Null if the event is not logged: then it is shown to whoever is there, and never again. */
  id: string | null;
  /** The type, or null. */
  event: string | null;
  /** When it was logged, in milliseconds since 1970. */
  time: number | null;
  /** Where a stream would go on after it. */
  cursor: string | undefined;
} & ({ encoding: 'json'; data: T } | { encoding: 'text'; data: string });

/** Events of `topic` above `from` up to `to` may be missing here. */
export interface Gap {
  /** Null with `overflow`: of all topics. */
  topic: string | null;
  /** `overflow`: this tab, one of those that share a stream, took so long that 10,000 items waited for it. */
  reason: 'trimmed' | 'expired' | 'ahead' | 'log_lost' | 'rewound' | 'late' | 'bad_cursor' | 'overflow' | (string & {});
  from: string | null;
  to: string | null;
  cursor?: string;
}

/**
 * `waiting`: for the time of the next attempt. `ended`: all topics have. `failed`: refused for good, `info.error` says why.
 */
export type State = 'connecting' | 'catching-up' | 'live' | 'waiting' | 'ended' | 'failed' | 'closed';

export interface StateInfo {
  /** The network holds answers back, and short ones are asked for instead of a stream. */
  short: boolean;
  /** Milliseconds until the next attempt, with `waiting`. */
  wait?: number;
  /** With `shared`: whether this tab reads for all. */
  leader?: boolean;
  /** Why, with `failed`, and often with `waiting`. */
  error?: unknown;
}

type HeaderValues = Headers | Record<string, string> | [string, string][] | undefined;

export interface Options {
  /** The path of streams, `/events`; outside of pages with its origin. Its own parameters are kept. */
  url: string | URL;
  /** Up to 64; without any, the topic `events`. */
  topics?: readonly string[] | ReadonlySet<string>;
  /** Only events of these types. */
  types?: readonly string[] | ReadonlySet<string>;
  /** Where to begin: `cursor` of an earlier one. It wins over what is stored, and that over `since` and `last`. */
  cursor?: string;
  /** On a first visit, begin with what is retained: `earliest`, or a span such as `5m`. */
  since?: string;
  /** On a first visit, begin with the last so many events. */
  last?: number;
  /** Sent with each request; a function is asked before each. */
  headers?: HeaderValues | (() => HeaderValues | Promise<HeaderValues>);
  /** Asked for a ticket before each request (`POST /tickets`): each opens one stream. Then no header is needed. */
  ticket?: () => string | Promise<string>;
  /** More for `fetch`, such as `{ credentials: 'include' }`. */
  init?: RequestInit;
  /** In place of `fetch`. */
  fetch?: typeof globalThis.fetch;
  /** Keeps the cursor, so that a page goes on after a reload: `sessionStorage` (each tab its own), or `localStorage`. */
  storage?: Pick<Storage, 'getItem' | 'setItem'>;
  /** One stream for all tabs that ask for the same, where the browser has locks (https, localhost). */
  shared?: boolean;
  /** Of lock, channel and stored cursor; by default made of address, topics and types. Name the user if tabs may differ in it. */
  name?: string;
  /** Ends it. */
  signal?: AbortSignal;
  /** What `stream.heartbeat` of the gateway is thought to be until it is known, in milliseconds (15000). */
  heartbeat?: number;
  /** How long the first bytes of a stream may take before short answers are asked for, in milliseconds (8000). */
  patience?: number;
  /** Each event. The next one waits for the promise that it returns. Without it, loop over the object itself. */
  onEvent?: (event: TidegateEvent) => unknown;
  /** Events are missing: load the state anew. Without it, a loop throws a `GapError`. */
  onGap?: (gap: Gap) => unknown;
  /** What was there has been shown, and from here on events come as they are published. Again after each break. */
  onLive?: (at: { cursor: string | undefined }) => unknown;
  /** The gateway's own events, without `tidegate.`: `open`, `live`, `cursor`, `deleted`, `connections`. */
  onControl?: (name: string, data: any) => unknown;
  onState?: (state: State, info: StateInfo) => unknown;
  /** The request was refused by 401, 403 or another status below 500. True, or a promise of it: try again, with new headers. */
  onRefused?: (error: TidegateError) => boolean | undefined | void | Promise<boolean | undefined | void>;
}

/** Reads topics until they have ended or it is closed. */
export class Tidegate implements AsyncIterable<TidegateEvent> {
  constructor(options: Options);
  /** Where a stream would have to begin to show what was not handled yet. */
  readonly cursor: string | undefined;
  readonly state: State;
  /** Ends it. No event is shown any more. */
  close(): void;
  /** Events one by one, without `onEvent`. A `break` closes it. */
  [Symbol.asyncIterator](): AsyncIterableIterator<TidegateEvent>;
}

/** The request can never succeed, or was refused. */
export class TidegateError extends Error {
  constructor(message: string, status?: number);
  readonly status: number | undefined;
}

/** Events may be missing, and nobody listens for it (`onGap`). */
export class GapError extends Error {
  constructor(gap: Gap);
  readonly gap: Gap;
}

/** The interpretation of an event stream (WHATWG HTML, section 9.2.6), for bytes that are cut anywhere. */
export class EventStreamParser {
  /** The reconnection time that was asked for, in milliseconds. */
  readonly retry: number | undefined;
  /** The blocks that these bytes complete. */
  feed(bytes: Uint8Array): { type: string; data: string | undefined; id: string | undefined }[];
}

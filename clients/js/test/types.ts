// Read by the compiler alone: what callers write fits the types.

import { GapError, Tidegate, TidegateError, type Gap, type State, type TidegateEvent } from '../index.js';

const tide = new Tidegate({
  url: '/events',
  topics: new Set(['prices']),
  storage: { getItem: () => null, setItem: () => {} },
  headers: async () => ({ Authorization: 'Bearer x' }),
  ticket: async () => 'tgt_x',
  init: { credentials: 'include' },
  onEvent: (event: TidegateEvent) => (event.encoding === 'text' ? event.data.length : event.data.eur),
  onGap: (gap: Gap) => gap.reason === 'trimmed',
  onState: (state: State, { wait }) => state === 'waiting' && wait,
  onRefused: async ({ status }) => status === 401,
});
const cursor: string | undefined = tide.cursor;
for await (const { topic, id } of tide) console.log(topic.length, id?.length, cursor);
// @ts-expect-error a misspelt option
new Tidegate({ url: '/events', topic: 'prices' });
// @ts-expect-error one string is no list of topics, though it can be iterated
new Tidegate({ url: '/events', topics: 'prices' });
new GapError({ topic: 'a', reason: 'late', from: null, to: null }).gap.topic;
new TidegateError('no').status;

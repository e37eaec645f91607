// Goal: each event once and in order, whatever happens between client and gateway; and never silently less.
//
// Method: the gateway behind nginx, and a relay that cuts, holds back, freezes or refuses.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GapError, Tidegate, TidegateError } from 'tidegate';
import { EVENTS, FAILSAFE_MS, NDJSON, Relay, count, ear, newTopic, publish, until } from './support.js';

const timed = { timeout: 2 * FAILSAFE_MS };

/** A client for this test alone. */
function follow(t, options) {
  const tide = new Tidegate({ url: EVENTS, ...options });
  t.after(() => tide.close());
  return tide;
}

async function relay(t) {
  const between = await Relay.start();
  t.after(() => between.stop());
  return between;
}

const numbers = (to) => [...Array(to).keys()];

test('events of every type come with their topics', timed, async (t) => {
  const [one, other] = [newTopic(), newTopic()];
  const { heard, options, shows } = ear();
  const tide = follow(t, { topics: [one, other], ...options });
  await until('live', () => tide.state === 'live');
  const first = await publish(one, '{"eur":1}', '?event=price');
  const second = await publish(other, 'two\nlines');
  await shows(2);
  const [price, text] = heard.events;
  assert.deepEqual({ ...price }, {
    topic: one, id: first, event: 'price', time: Number(first.split('-')[0]), encoding: 'json', data: { eur: 1 }, cursor: first,
  });
  assert.deepEqual([text.topic, text.id, text.event, text.encoding, text.data], [other, second, null, 'text', 'two\nlines']);
  await until('the cursor is the last event', () => tide.cursor === second);
  assert.equal(heard.lives, 1);
  assert.deepEqual(heard.states, ['catching-up', 'live']);
  assert.deepEqual(heard.controls.filter(([name]) => name === 'open')[0][1].topics, [one, other]);
  tide.close();
  assert.equal(heard.states.at(-1), 'closed');
});

test('only the types that were asked for come', timed, async (t) => {
  const topic = newTopic();
  await publish(topic, '1', '?event=a');
  await publish(topic, '2', '?event=b');
  await publish(topic, '3');
  const { options, shows, datas } = ear();
  follow(t, { topics: [topic], types: ['b', 'message'], since: 'earliest', ...options });
  await shows(2);
  assert.deepEqual(datas(), [2, 3]);
});

test('what is retained comes before it is live', timed, async (t) => {
  const topic = newTopic();
  await count(topic, 0, 5);
  for (const [begin, expected] of [[{ since: 'earliest' }, [0, 1, 2, 3, 4]], [{ last: 2 }, [3, 4]]]) {
    const { options, datas } = ear();
    let before;
    follow(t, { topics: [topic], ...begin, ...options, onLive: () => { before = datas(); } });
    await until('live', () => before);
    assert.deepEqual(before, expected);
  }
});

test('a loop gets events one by one, and goes on from the cursor of the last', timed, async (t) => {
  const topic = newTopic();
  await count(topic, 0, 4);
  const seen = [];
  let cursor;
  for await (const event of follow(t, { topics: [topic], since: 'earliest' })) {
    seen.push(event.data);
    ({ cursor } = event);
    if (seen.length === 2) break;
  }
  for await (const event of follow(t, { topics: [topic], cursor })) {
    seen.push(event.data);
    if (seen.length === 4) break;
  }
  assert.deepEqual(seen, numbers(4));
});

test('a slow loop holds the stream back, and gets everything', timed, async (t) => {
  const topic = newTopic();
  const text = 'x'.repeat(1000);
  const lines = numbers(3000).map((number) => JSON.stringify({ topic, data: { number, text } }));
  for (let at = 0; at < lines.length; at += 1000) {
    const body = lines.slice(at, at + 1000).join('\n');
    const answer = await fetch(EVENTS, { method: 'POST', headers: NDJSON, body });
    assert.equal((await answer.json()).events.length, 1000);
  }
  let received = 0;
  const counting = async (...asked) => {
    const answer = await fetch(...asked);
    const counter = new TransformStream({ transform(bytes, on) { received += bytes.length; on.enqueue(bytes); } });
    return new Response(answer.body.pipeThrough(counter), answer);
  };
  const tide = follow(t, { topics: [topic], since: 'earliest', fetch: counting });
  const seen = [];
  let ahead = 0;
  for await (const { data } of tide) {
    ahead = Math.max(ahead, received - seen.length * text.length);
    seen.push(data.number);
    await new Promise(setImmediate);
    if (seen.length === lines.length) break;
  }
  assert.deepEqual(seen, numbers(3000));
  assert.ok(ahead < 1_000_000, `of 3 MB it never has more than a part: ${ahead}`);
  assert.equal(tide.state, 'closed');
});

test('the next event waits for a callback that takes its time, and one that fails ends nothing', timed, async (t) => {
  const topic = newTopic();
  await count(topic, 0, 5);
  t.mock.method(console, 'error', () => {});
  const seen = [];
  let within = 0;
  follow(t, {
    topics: [topic], since: 'earliest',
    onEvent: async ({ data }) => {
      assert.equal(within++, 0);
      await new Promise(setImmediate);
      within -= 1;
      seen.push(data);
      if (data === 2) throw new Error('of the page');
    },
  });
  await until('all came', () => seen.length === 5);
  assert.deepEqual(seen, numbers(5));
  assert.equal(console.error.mock.callCount(), 1);
});

test('a gap is told, and by a loop without a listener thrown', timed, async (t) => {
  const topic = newTopic();
  const { heard, options } = ear();
  follow(t, { topics: [topic], cursor: 'of-another-server', ...options });
  await until('the gap', () => heard.gaps.length);
  assert.deepEqual([heard.gaps[0].topic, heard.gaps[0].reason], [topic, 'bad_cursor']);
  const tide = follow(t, { topics: [topic], cursor: 'of-another-server' });
  const next = async () => { for await (const event of tide) return event; };
  await assert.rejects(next, (error) => error instanceof GapError && error.gap.reason === 'bad_cursor');
  const came = next();
  await publish(topic, 'after it');
  assert.equal((await came).data, 'after it');
});

test('the end of all topics is the end', timed, async (t) => {
  const [one, other] = [newTopic(), newTopic()];
  const { heard, options, datas } = ear();
  const tide = follow(t, { topics: [one, other], ...options });
  await until('live', () => tide.state === 'live');
  await publish(one, '1', '?end');
  await publish(other, '2');
  await publish(other, '3', '?end');
  await until('ended', () => heard.states.at(-1) === 'ended');
  assert.deepEqual(datas(), [1, 2, 3]);
  const seen = [];
  for await (const event of follow(t, { topics: [one], since: 'earliest' })) seen.push(event.data);
  assert.deepEqual(seen, [1]);
});

test('a request that can never succeed fails at once', timed, async (t) => {
  const { heard, options } = ear({ onRefused: () => true });
  follow(t, { topics: ['a#b'], ...options });
  await until('failed', () => heard.states.at(-1) === 'failed');
  const { error } = heard.infos.at(-1);
  assert.ok(error instanceof TidegateError);
  assert.equal(error.status, 400);
  assert.match(error.message, /has no control character/);
  await assert.rejects(async () => { for await (const _ of follow(t, { topics: ['a#b'] })); }, TidegateError);
});

test('a refusal ends it, unless new headers are to be tried', timed, async (t) => {
  const between = await relay(t);
  const topic = newTopic();
  between.mode = 401;
  const { heard, options } = ear();
  follow(t, { topics: [topic], ...options, url: between.events });
  await until('failed', () => heard.states.at(-1) === 'failed');
  assert.equal(heard.infos.at(-1).error.status, 401);
  assert.equal(between.asked.length, 1);

  let tokens = 0;
  const renewing = ear({ onRefused: async ({ status }) => { between.mode = 'pass'; return status === 401; } });
  const tide = follow(t, {
    topics: [topic], url: between.events, headers: async () => ({ Authorization: `Bearer ${++tokens}` }), ...renewing.options,
  });
  await until('live', () => tide.state === 'live');
  const sent = between.asked.slice(1).map(({ headers }) => headers.authorization);
  assert.deepEqual(sent, ['Bearer 1', 'Bearer 2']);
});

test('a cut is not an end, and neither is a server that is away', timed, async (t) => {
  const between = await relay(t);
  const topic = newTopic();
  const { heard, options, shows, datas } = ear();
  const tide = follow(t, { topics: [topic], ...options, url: between.events });
  await until('live', () => tide.state === 'live');
  await publish(topic, '0');
  await shows(1);
  between.cut();
  await publish(topic, '1');
  await shows(2);
  between.mode = 503;
  between.cut();
  await publish(topic, '2');
  await until('refused twice', () => between.asked.length >= 4);
  between.mode = 'pass';
  await publish(topic, '3');
  await shows(4);
  assert.deepEqual(datas(), [0, 1, 2, 3]);
  assert.deepEqual(heard.gaps, []);
  const waits = heard.infos.filter(({ state }) => state === 'waiting').map(({ wait }) => wait);
  assert.ok(waits.length >= 3, 'after each cut, and after a refusal');
  assert.ok(waits.every((wait) => wait >= 50), `never less than was told: ${waits}`);
  await until('live', () => tide.state === 'live');
});

test('where answers are held back, short ones bring each event, and streams as soon as it can be', timed, async (t) => {
  const between = await relay(t);
  const topic = newTopic();
  between.mode = 'hold';
  const { heard, options, shows, datas } = ear();
  await count(topic, 0, 3);
  const tide = follow(t, { topics: [topic], since: 'earliest', patience: 300, ...options, url: between.events });
  await shows(3);
  assert.ok(heard.infos.some(({ short }) => short), 'short answers are asked for');
  await until('live', () => tide.state === 'live');
  for (let number = 3; number < 6; number++) {
    await publish(topic, String(number));
    await shows(number + 1);
  }
  assert.deepEqual(datas(), numbers(6));
  assert.equal(heard.lives, 1, 'one short answer after another is one stream');
  between.mode = 'pass';
  await until('a short answer is seen to pass', () => between.heartbeats >= 4);
  await publish(topic, '6');
  await until('a stream again', () => between.open.size && !between.asked.at(-1).url.includes('max_age'));
  await publish(topic, '7');
  await shows(8);
  assert.deepEqual(datas(), numbers(8));
  assert.deepEqual(heard.gaps, []);
});

test('a stream that is dead without a word is opened anew', timed, async (t) => {
  const between = await relay(t);
  const topic = newTopic();
  const { heard, options, shows, datas } = ear();
  const tide = follow(t, { topics: [topic], ...options, url: between.events });
  await until('live', () => tide.state === 'live');
  await publish(topic, '0');
  await shows(1);
  // The pause between heartbeats is learnt from two of them: 15 s would be waited for otherwise, thrice.
  const { asked: { length } } = between;
  await new Promise((resolve) => {
    const [dead] = between.open;
    const { write } = dead;
    let heartbeats = 0;
    dead.write = (bytes) => {
      heartbeats += String(bytes).includes('tidegate.heartbeat');
      if (heartbeats === 3) resolve(dead.write = () => true);
      return write.call(dead, bytes);
    };
  });
  await publish(topic, '1');
  await shows(2);
  assert.deepEqual(datas(), [0, 1]);
  assert.ok(between.asked.length > length);
  await until('live', () => tide.state === 'live');
});

test('each request has a ticket of its own', timed, async (t) => {
  const between = await relay(t);
  const topic = newTopic();
  const { options, shows, datas } = ear();
  let tickets = 0;
  const ticket = async () => {
    tickets += 1;
    if (tickets === 2) throw new Error('no ticket now');
    return `ticket ${tickets}`;
  };
  const tide = follow(t, { topics: [topic], url: between.events, ticket, ...options });
  await until('live', () => tide.state === 'live');
  await publish(topic, '1');
  await shows(1);
  between.cut();
  await publish(topic, '2');
  await shows(2);
  assert.deepEqual(datas(), [1, 2]);
  const sent = between.asked.map(({ url }) => new URL(url, between.origin).searchParams.get('ticket'));
  assert.deepEqual(sent, ['ticket 1', 'ticket 3']);
});

test('a signal closes it, and so no request is left', timed, async (t) => {
  const between = await relay(t);
  const abort = new AbortController();
  const { heard, options } = ear();
  const tide = follow(t, { topics: [newTopic()], signal: abort.signal, ...options, url: between.events });
  await until('live', () => tide.state === 'live');
  abort.abort();
  assert.equal(heard.states.at(-1), 'closed');
  await until('the connection is closed', () => between.open.size === 0);
});

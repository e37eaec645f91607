// Goal: what no gateway would say is a cut or an error of ours, fills no memory, and has nobody ask all the time.
//
// Method: a server that answers each request with what the test gives it.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { test } from 'node:test';
import { Tidegate, TidegateError } from 'tidegate';
import { FAILSAFE_MS, ear, until } from './support.js';

const timed = { timeout: 2 * FAILSAFE_MS };
const OPEN = 'id: 1-0\nevent: tidegate.open\ndata: {"topics":["a"]}\n\n';
const event = (number, data) => (
  `id: 1-${number}\ndata: {"topic":"a","id":"1-${number}","event":null,"time":1,"encoding":"json","data":${data}}\n\n`
);

const stream = (text) => (answer) => answer.writeHead(200, { 'Content-Type': 'text/event-stream' }).end(text);
const ended = (answer) => answer.writeHead(204).end();
const refusing = (answer) => answer.writeHead(503, { 'Retry-After': '0' }).end();
/** Nothing, until whoever asked has gone. */
const silent = () => {};

/** Answers the requests one after another so, the last answer again and again. */
async function liar(t, answers) {
  const asked = { count: 0 };
  const server = http.createServer((request, answer) => {
    answers[Math.min(asked.count++, answers.length - 1)](answer);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => { server.close(); server.closeAllConnections(); });
  return { asked, url: `http://127.0.0.1:${server.address().port}/events` };
}

function follow(t, url, options) {
  const { heard, options: told, datas } = ear();
  const tide = new Tidegate({ url, topics: ['a'], ...told, ...options });
  t.after(() => tide.close());
  return { heard, datas };
}

test('a number that no parser holds ends nothing', timed, async (t) => {
  const said = OPEN + event(1, '9'.repeat(5000)) + event(2, '1e999') + event(3, '"after"');
  const { url } = await liar(t, [stream(said), ended]);
  const { heard, datas } = follow(t, url);
  await until('ended', () => heard.states.at(-1) === 'ended');
  assert.deepEqual(datas(), [Infinity, Infinity, 'after']);
});

test('what no gateway says is a cut', timed, async (t) => {
  const bad = [
    'event: tidegate.gap\ndata: 5\n\n',
    'event: tidegate.gap\ndata: null\n\n',
    'event: tidegate.gap\ndata: {}\n\n',
    'event: tidegate.gap\ndata: {"topic":1,"reason":"late","from":null,"to":null}\n\n',
    'event: tidegate.open\ndata: null\n\n',
    'event: tidegate.live\ndata: {\n\n',
    `event: tidegate.open\ndata: ${'['.repeat(200_000)}\n\n`,
    `retry: ${'9'.repeat(400)}\nretry: 1\n\nevent: tidegate.gap\ndata: 5\n\n`,
  ];
  const answers = bad.map((each) => stream(`retry: 1\n${OPEN}${each}`));
  const { url } = await liar(t, [...answers, stream(OPEN + event(1, '"good"')), ended]);
  const { heard, datas } = follow(t, url);
  await until('ended', () => heard.states.at(-1) === 'ended');
  assert.deepEqual(datas(), ['good']);
  assert.deepEqual(heard.gaps, []);
});

test('events without an envelope are told', timed, async (t) => {
  for (const data of ['hello', '5', 'null', '{"topic":1,"id":"1-1"}', '{"topic":"a"}', '{"topic":"a","id":1}']) {
    const { url } = await liar(t, [stream(`${OPEN}data: ${data}\n\n`)]);
    const { heard } = follow(t, url);
    await until('failed', () => heard.states.at(-1) === 'failed');
    assert.ok(heard.infos.at(-1).error instanceof TidegateError);
    assert.match(heard.infos.at(-1).error.message, /without an envelope/);
  }
});

test('a server is not asked all the time, whatever it says', timed, async (t) => {
  const closing = stream(`retry: 0\n${OPEN}`);
  const events = stream(`retry: 0\n${OPEN}${event(1, '1')}`);
  // Nothing comes of the silent one, and so short answers are asked for.
  for (const answers of [[closing], [events], [closing, refusing], [silent, events]]) {
    const begun = performance.now();
    const { url, asked } = await liar(t, answers);
    follow(t, url, { patience: 500 });
    await until('asked six times', () => asked.count >= 6);
    // A timer may be a little early.
    assert.ok(performance.now() - begun >= 490);
  }
});

test('a refusal without an end is one', timed, async (t) => {
  let sent = 0;
  const { url } = await liar(t, [(answer) => {
    answer.writeHead(401);
    const more = () => {
      while (sent < 256 << 20 && !answer.destroyed) {
        sent += 65_536;
        if (!answer.write('x'.repeat(65_536))) return;
      }
    };
    answer.on('drain', more);
    more();
  }]);
  const { heard } = follow(t, url);
  await until('failed', () => heard.states.at(-1) === 'failed');
  assert.equal(heard.infos.at(-1).error.status, 401);
  assert.ok(sent < 32 << 20, `it is read no further: ${sent}`);
});

// Goal: each event once and in order, though replicas and Redis go and come.
//
// Method: these change the cluster, so they run alone, and one after another.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Tidegate } from 'tidegate';
import { EVENTS, FAILSAFE_MS, cluster, count, ear, newTopic, until } from './support.js';

const timed = { timeout: 2 * FAILSAFE_MS };
const numbers = (to) => [...Array(to).keys()];

test('a replica is killed, and nothing is missed', timed, async (t) => {
  const topic = newTopic();
  const { heard, options, shows, datas } = ear();
  const tide = new Tidegate({ url: EVENTS, topics: [topic], since: 'earliest', ...options });
  t.after(() => tide.close());
  await count(topic, 0, 3);
  await shows(3);
  const { replica } = heard.controls.findLast(([name]) => name === 'open')[1];
  await cluster('kill', replica);
  await count(topic, 3, 6);
  await shows(6);
  await cluster('start', replica);
  await count(topic, 6, 8);
  await shows(8);
  assert.deepEqual(datas(), numbers(8));
  assert.deepEqual(heard.gaps, []);
});

test('Redis is away, and the stream goes on when it is back', timed, async (t) => {
  const topic = newTopic();
  const { heard, options, shows, datas } = ear();
  const tide = new Tidegate({ url: EVENTS, topics: [topic], since: 'earliest', ...options });
  t.after(() => tide.close());
  await count(topic, 0, 3);
  await shows(3);
  await cluster('stop', 'redis');
  await cluster('start', 'redis');
  await count(topic, 3, 6);
  await shows(6);
  assert.deepEqual(datas(), numbers(6));
  assert.deepEqual(heard.gaps, []);
});

test('all replicas are away, and the stream goes on when they are back', timed, async (t) => {
  const topic = newTopic();
  const { heard, options, shows, datas } = ear();
  const tide = new Tidegate({ url: EVENTS, topics: [topic], since: 'earliest', ...options });
  t.after(() => tide.close());
  await count(topic, 0, 3);
  await shows(3);
  await cluster('kill', 'r1', 'r2', 'r3');
  await until('told to come back', () => heard.states.filter((state) => state === 'waiting').length > 1);
  await cluster('start', 'r1', 'r2', 'r3');
  await count(topic, 3, 5);
  await shows(5);
  assert.deepEqual(datas(), numbers(5));
});

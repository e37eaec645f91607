// Goal: in a browser, one stream serves all tabs, whichever of them comes, goes or is loaded anew; and each tab shows each
// event once.
//
// Method: Chromium without a window, over the relay, which counts streams. Left out where there is no Chromium, unless
// TIDEGATE_NEED_CHROMIUM is set.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Chromium, installed } from './chromium.js';
import { EVENTS, FAILSAFE_MS, NDJSON, Relay, newTopic, publish, until } from './support.js';

const program = installed();
const skip = !program && !process.env.TIDEGATE_NEED_CHROMIUM && 'NOT CHECKED: no chromium on the path';
const timed = { skip, timeout: 2 * FAILSAFE_MS };
const sources = dirname(fileURLToPath(import.meta.resolve('tidegate')));
const readme = readFileSync(join(sources, '../README.md'), 'utf8');

/** The page's own part: it collects what it is told. */
const collect = (options) => `
  const shown = window.shown = [];
  const gaps = window.gaps = [];
  window.tide = new Tidegate({
    url: '/events', ...${JSON.stringify(options)},
    storage: sessionStorage,
    onEvent: ({ data }) => { shown.push(data); },
    onGap: (gap) => { gaps.push(gap); },
    onState: (state, { leader }) => { window.leads = leader; },
  });`;

function pages(url) {
  const { pathname, searchParams } = new URL(url, 'http://localhost');
  if (pathname.startsWith('/client/')) {
    return { type: 'text/javascript', body: readFileSync(join(sources, pathname.slice('/client/'.length))) };
  }
  const script = scripts.get(searchParams.get('script'));
  if (pathname !== '/page' || !script) return undefined;
  const map = '{ "imports": { "tidegate": "/client/index.js" } }';
  const imported = script.includes('import ') ? '' : "import { Tidegate } from 'tidegate';";
  return {
    type: 'text/html',
    body: `<!doctype html><script type="importmap">${map}</script><script type="module">${imported}${script}</script>`,
  };
}

const scripts = new Map([['blank', 'document.title = 1;']]);
let browser;
let relay;

before(async () => {
  if (skip) return;
  assert.ok(program, 'TIDEGATE_NEED_CHROMIUM is set, and there is no chromium');
  browser = await Chromium.start(program);
});
after(() => browser?.stop());

/** Where a page with this script is, on a server of its own: no other test's tabs speak to it. */
async function serve(t, script) {
  relay = await Relay.start(pages);
  t.after(() => relay.stop());
  scripts.set(t.name, script);
  return `${relay.origin}/page?script=${encodeURIComponent(t.name)}`;
}

async function open(t, url) {
  const page = await browser.page(url);
  t.after(() => page.close().catch(() => {}));
  return page;
}

const live = (page) => page.until("window.tide?.state === 'live'");

/** Streams wait from now on, until what this returns is called. */
function shutGate() {
  let letPass;
  relay.gate = new Promise((resolve) => { letPass = resolve; });
  return letPass;
}

async function shows(page, expected) {
  await page.until(`shown.length >= ${expected.length}`);
  assert.deepEqual(await page.evaluate('[shown, gaps]'), [expected, []]);
}

test('a page goes on where it was when it is loaded anew', timed, async (t) => {
  const topic = newTopic();
  const url = await serve(t, collect({ topics: [topic] }));
  const page = await open(t, url);
  await live(page);
  await publish(topic, '1');
  await shows(page, [1]);
  await page.open('about:blank');
  await publish(topic, '2');
  await page.open(url);
  await publish(topic, '3');
  await shows(page, [2, 3]);
});

test('one stream serves all tabs, whichever comes and goes', timed, async (t) => {
  const topic = newTopic();
  const url = await serve(t, collect({ topics: [topic], shared: true }));
  const tabs = [await open(t, url)];
  await live(tabs[0]);
  tabs.push(await open(t, url), await open(t, url));
  await Promise.all(tabs.map(live));
  await publish(topic, '1');
  for (const tab of tabs) await shows(tab, [1]);
  assert.equal(relay.asked.length, 1, 'one stream for three tabs');
  assert.deepEqual(await Promise.all(tabs.map((tab) => tab.evaluate('Boolean(leads)'))), [true, false, false]);

  // The leader goes, and events come before another one reads.
  const letPass = shutGate();
  await tabs.shift().close();
  await until('another one wants to read', () => relay.asked.length > 1);
  await publish(topic, '2');
  letPass();
  await publish(topic, '3');
  for (const tab of tabs) await shows(tab, [1, 2, 3]);
  await until('of the tab that went, its stream has gone, too', () => relay.open.size === 1);

  // Both are loaded anew, one after the other: whoever leads, and whoever does not.
  for (const tab of tabs) {
    await tab.open('about:blank');
    await publish(topic, '4');
    await tab.open(url);
    await live(tab);
    await publish(topic, '5');
    await shows(tab, [4, 5]);
  }
  assert.deepEqual(await tabs[0].evaluate('shown'), [4, 5, 4, 5], 'the other one saw what was published meanwhile');
  await until('its own stream has ended', () => relay.open.size === 1);
});

test('a tab that is to lead while it still catches up does so on one stream', timed, async (t) => {
  const topic = newTopic();
  const url = await serve(t, collect({ topics: [topic], shared: true }));
  const leader = await open(t, url);
  await live(leader);
  const tab = await open(t, url);
  await live(tab);
  await tab.open('about:blank');
  await publish(topic, '1');
  const letPass = shutGate();
  await tab.open(url);
  await until('it catches up', () => relay.asked.length === 2);
  await leader.close();
  await until('it leads', () => relay.asked.length === 3);
  letPass();
  await shows(tab, [1]);
  await publish(topic, '2');
  await shows(tab, [1, 2]);
  await until('one stream', () => relay.open.size === 1);
});

test('while events pour in, tabs that come, go and reload show each once and in order', timed, async (t) => {
  const topic = newTopic();
  const url = await serve(t, collect({ topics: [topic], shared: true }));
  const stays = await open(t, url);
  await live(stays);
  let goes = await open(t, url);
  await live(goes);
  let published = 0;
  let isOver = false;
  const pouring = (async () => { while (!isOver) await publish(topic, String(published++)); })();
  const parts = [];
  for (let round = 0; round < 4; round++) {
    // Every second time it is the leader that is loaded anew.
    const tab = round % 2 ? stays : goes;
    const more = published + 20;
    await tab.until(`shown.length && shown.at(-1) >= ${more}`);
    if (tab === goes) parts.push(...await tab.evaluate('tide.close(), shown'));
    else {
      const before = await tab.evaluate('tide.close(), shown');
      await tab.evaluate('sessionStorage.setItem("before", JSON.stringify([...JSON.parse(sessionStorage.getItem("before") ?? "[]"), ...shown]))');
      assert.ok(before.length);
    }
    await tab.open('about:blank');
    await tab.open(url);
  }
  isOver = true;
  await pouring;
  const all = [...Array(published).keys()];
  for (const tab of [stays, goes]) await tab.until(`shown.at(-1) === ${published - 1}`);
  parts.push(...await goes.evaluate('shown'));
  assert.deepEqual(parts, all.slice(all.indexOf(parts[0])));
  const before = await stays.evaluate('JSON.parse(sessionStorage.getItem("before")).concat(shown)');
  assert.deepEqual(before, all);
  assert.deepEqual(await stays.evaluate('gaps'), []);
});

test('an event that two leaders have told is shown once', timed, async (t) => {
  const topic = newTopic();
  const url = await serve(t, collect({ topics: [topic], shared: true, name: topic }));
  const tabs = [await open(t, url), await open(t, url)];
  await Promise.all(tabs.map(live));
  // As by one that read the last events once more, since it had not heard the one before tell them.
  await tabs[1].evaluate(`
    window.echo = new BroadcastChannel(${JSON.stringify(topic)});
    window.echoes = 0;
    echo.onmessage = ({ data }) => { if (data.kind === 'event') { echo.postMessage(data); echoes += 1; } }; 0`);
  for (const data of ['1', '2', '3']) await publish(topic, data);
  await tabs[1].until('echoes === 3');
  await publish(topic, '4');
  for (const tab of tabs) await shows(tab, [1, 2, 3, 4]);
});

test('a page that the browser has kept goes on when it is shown again', timed, async (t) => {
  const topic = newTopic();
  const url = await serve(t, `${collect({ topics: [topic], shared: true })} addEventListener('pageshow', ({ persisted }) => { window.kept = persisted; });`);
  const page = await open(t, url);
  await live(page);
  await publish(topic, '1');
  await shows(page, [1]);
  await page.open(`${relay.origin}/page?script=blank`);
  await until('its stream has ended', () => relay.open.size === 0);
  await publish(topic, '2');
  await page.evaluate('history.back()');
  await page.until(`location.href === ${JSON.stringify(url)} && window.shown?.at(-1) === 2`);
  await publish(topic, '3');
  await page.until('shown.at(-1) === 3');
  const kept = await page.evaluate('window.kept');
  assert.deepEqual(await page.evaluate('shown'), kept ? [1, 2, 3] : [2, 3]);
  t.diagnostic(`the browser has kept it: ${kept}`);
});

test('a tab that takes its time holds nobody back, and is told of a gap', timed, async (t) => {
  const topic = newTopic();
  const url = await serve(t, `${collect({ topics: [topic], shared: true, name: 'slow' })}
    window.slowTide = new Tidegate({
      url: '/events', topics: [${JSON.stringify(topic)}], shared: true, name: 'slow',
      onEvent: ({ data }) => { (window.slow ??= []).push(data); return window.release ??= new Promise((resolve) => { window.go = resolve; }); },
      onGap: ({ reason }) => { window.slow.push(reason); },
    });`);
  const tabs = [await open(t, url), await open(t, url)];
  for (const tab of tabs) await tab.until("tide.state === 'live' && slowTide.state === 'live'");
  const numbers = [...Array(11_000).keys()];
  for (let at = 0; at < numbers.length; at += 1000) {
    const body = numbers.slice(at, at + 1000).map((data) => JSON.stringify({ topic, data })).join('\n');
    assert.equal((await (await fetch(EVENTS, { method: 'POST', headers: NDJSON, body })).json()).events.length, 1000);
  }
  for (const tab of tabs) {
    await tab.until('shown.length === 11000');
    assert.deepEqual(await tab.evaluate('[slow, gaps]'), [[0], []]);
    await tab.evaluate('go()');
    await tab.until('slow.at(-1) === 10999');
    const slow = await tab.evaluate('slow');
    assert.equal(slow[1], 'overflow');
    assert.deepEqual(slow.slice(2), numbers.slice(-(slow.length - 2)), 'from there on it misses nothing');
  }
});

test('all tabs are told of a gap and of the end', timed, async (t) => {
  const topic = newTopic();
  const url = await serve(t, collect({ topics: [topic], shared: true }));
  const tabs = [await open(t, url), await open(t, url)];
  await Promise.all(tabs.map(live));
  await publish(topic, '1', '?end');
  for (const tab of tabs) {
    await tab.until("tide.state === 'ended'");
    await shows(tab, [1]);
  }
});

test('the example of the page does what it says', timed, async (t) => {
  const [example] = /(?<=```js\n)import[^`]*sessionStorage[^`]*(?=```)/.exec(readme);
  const url = await serve(t, `window.logged = []; console.log = (...words) => logged.push(words); ${example}; window.tide = tide;`);
  const page = await open(t, url);
  await live(page);
  await publish('prices', '{"eur":1}', '?event=price');
  await page.until("logged.some(([topic]) => topic === 'prices')");
  assert.deepEqual(await page.evaluate("logged.find(([topic]) => topic === 'prices')"), ['prices', 'price', { eur: 1 }]);
});

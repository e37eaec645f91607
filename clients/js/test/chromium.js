// A real Chromium without a window, spoken to over its debugging pipe: JSON messages, each with a NUL at its end
// (https://chromedevtools.github.io/devtools-protocol/).

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FAILSAFE_MS, until } from './support.js';

/** Where it is, if it is. */
export function installed() {
  const folders = (process.env.PATH ?? '').split(':');
  const names = ['chromium', 'chromium-browser', 'google-chrome'];
  return names.flatMap((name) => folders.map((folder) => join(folder, name))).find((path) => existsSync(path));
}

/** All its pages share what tabs of one profile share. */
export class Chromium {
  #process;
  #profile;
  #last = 0;
  /** Who waits for an answer, by the number of its question. */
  #waiting = new Map();

  static async start(program) {
    const browser = new Chromium();
    browser.#profile = await mkdtemp(join(tmpdir(), 'tidegate-chromium-'));
    const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--remote-debugging-pipe'];
    browser.#process = spawn(program, [...flags, `--user-data-dir=${browser.#profile}`], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    });
    let rest = Buffer.alloc(0);
    browser.#process.stdio[4].on('data', (bytes) => {
      rest = Buffer.concat([rest, bytes]);
      for (let end = rest.indexOf(0); end >= 0; end = rest.indexOf(0)) {
        browser.#hear(JSON.parse(rest.subarray(0, end)));
        rest = rest.subarray(end + 1);
      }
    });
    return browser;
  }

  /** Opens a page, and waits until it is there. */
  async page(url) {
    const { targetId } = await this.call('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.call('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, targetId, sessionId);
    await page.call('Page.enable');
    await page.open(url);
    return page;
  }

  async stop() {
    const ended = once(this.#process, 'exit');
    this.call('Browser.close').catch(() => {});
    await ended;
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  }

  call(method, params = {}, sessionId = undefined) {
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      const failsafe = setTimeout(() => reject(new Error(`${method} is not answered`)), FAILSAFE_MS).unref();
      this.#waiting.set(id, ({ result, error }) => {
        clearTimeout(failsafe);
        if (error) reject(new Error(`${method}: ${error.message}`));
        else resolve(result);
      });
      this.#process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  #hear(message) {
    this.#waiting.get(message.id)?.(message);
    this.#waiting.delete(message.id);
  }
}

class Page {
  constructor(browser, targetId, sessionId) {
    Object.assign(this, { browser, targetId, sessionId });
  }

  call(method, params) { return this.browser.call(method, params, this.sessionId); }

  async open(url) {
    await this.call('Page.navigate', { url });
    await this.until(`location.href === ${JSON.stringify(url)} && document.readyState === 'complete'`);
  }

  /** What an expression comes to. */
  async evaluate(expression) {
    const answer = await this.call('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true });
    if (answer.exceptionDetails) throw new Error(`${expression}: ${JSON.stringify(answer.exceptionDetails)}`);
    return answer.result.value;
  }

  until(expression) { return until(expression, async () => (await this.evaluate(expression)) === true); }

  close() { return this.browser.call('Target.closeTarget', { targetId: this.targetId }); }
}

// Goal: the example for programs is one.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { BASE_URL, FAILSAFE_MS, publish, until } from './support.js';

test('the example for programs prints what is published', { timeout: 2 * FAILSAFE_MS }, async (t) => {
  const here = dirname(fileURLToPath(import.meta.url));
  const readme = readFileSync(join(dirname(fileURLToPath(import.meta.resolve('tidegate'))), '../README.md'), 'utf8');
  const [example] = /(?<=```js\n)import[^`]*for await[^`]*(?=```)/.exec(readme);
  const file = join(here, 'example.mjs');
  writeFileSync(file, example.replace('http://127.0.0.1:8080', BASE_URL));
  const program = spawn(process.execPath, [file], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => program.kill());
  let printed = '';
  program.stdout.on('data', (text) => { printed += text; });
  await publish('orders', '{"item":1}', '?event=new');
  await until('it is printed', () => printed.includes("orders new { item: 1 }"));
  assert.equal(program.exitCode, null);
});

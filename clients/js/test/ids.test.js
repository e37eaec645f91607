// Goal: positions are compared as the gateway does, and never taken for reached when they cannot be compared.

import assert from 'node:assert/strict';
import { test } from 'node:test';

const { hasReached, isLater } = await import(new URL('ids.js', import.meta.resolve('tidegate')));

test('ids are compared by time, then by number', () => {
  for (const [one, other] of [['2-0', '1-9'], ['1-10', '1-9'], ['1795274004857-1', '1795274004857-0'], ['10-0', '9-0']]) {
    assert.equal(isLater(one, other), true, `${one} ${other}`);
    assert.equal(isLater(other, one), false, `${other} ${one}`);
  }
  assert.equal(isLater('1-1', '1-1'), false);
});

test('a cursor has reached another in every partition of that one', () => {
  for (const [cursor, target, reached] of [
    ['5-1', '5-1', true], ['5-2', '5-1', true], ['5-0', '5-1', false], [undefined, '5-1', false],
    ['3:5-1,17:6-1', '3:5-1,17:6-1', true], ['3:5-1,17:5-9', '3:5-1,17:6-1', false], ['3:9-1', '3:5-1,17:6-1', false],
    ['3:9-1,17:9-1', '3:5-1', true], ['9-9', '3:5-1', false], ['of-another', '5-1', false],
  ]) assert.equal(hasReached(cursor, target), reached, `${cursor} ${target}`);
});

// Goal: streams are read as the standard says, wherever they are cut.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EventStreamParser } from 'tidegate';

const block = (data, { type = '', id } = {}) => ({ type, data, id });
const bytes = (text) => new TextEncoder().encode(text);

function parse(pieces) {
  const parser = new EventStreamParser();
  return pieces.flatMap((piece) => parser.feed(piece));
}

/** The cases of loadtest/sse-client, which the tests of the gateway read streams with. */
const CASES = [
  ['data: a\n\n', [block('a')]],
  ['data:a\ndata\ndata:  b\n\n', [block('a\n\n b')]],
  ['data\n\n', [block('')]],
  ['data\ndata\n\n', [block('\n')]],
  ['data:test\n\ndata: test\n\n', [block('test'), block('test')]],
  ['id: 1\nevent: x\ndata: a\n\n', [block('a', { type: 'x', id: '1' })]],
  ['id: 1\n\ndata: a\n\n', [block(undefined, { id: '1' }), block('a')]],
  ['id\ndata: a\n\n', [block('a', { id: '' })]],
  ['id: 1\0\ndata: a\n\n', [block('a')]],
  ['\ufeffdata: a\r\rdata: b\r\n\r\n', [block('a'), block('b')]],
  ['data: a\n\n\ufeffdata: b\n\n', [block('a'), block(undefined)]],
  [':\n: comment\ndata: a\n\n', [block('a')]],
  ['event: x\n\ndata: a\n\n', [block(undefined, { type: 'x' }), block('a')]],
  ['Data: a\nfoo: b\n\n', [block(undefined)]],
  ['data: cut off\n', []],
  ['id: 7\ndata: a\n\nid: 8\ndata: b\n', [block('a', { id: '7' })]],
  ['data: ü: €\u{1f30a}\n\n', [block('ü: €\u{1f30a}')]],
];

for (const [text, expected] of CASES) {
  test(`${JSON.stringify(text)} is read alike, however it is cut`, () => {
    const all = bytes(text);
    assert.deepEqual(parse([all]), expected);
    for (let at = 0; at < all.length; at++) assert.deepEqual(parse([all.slice(0, at), all.slice(at)]), expected, `cut at ${at}`);
    assert.deepEqual(parse([...all].map((byte) => Uint8Array.of(byte))), expected, 'byte by byte');
  });
}

test('a retry has digits only, and bytes that are no UTF-8 are replaced', () => {
  const parser = new EventStreamParser();
  parser.feed(bytes('retry: 2500\nretry: 3x\nretry:\n'));
  assert.equal(parser.retry, 2500);
  assert.deepEqual(parse([Uint8Array.of(0x64, 0x61, 0x74, 0x61, 0x3a, 0xff, 0x0a, 0x0a)]), [block('\ufffd')]);
});

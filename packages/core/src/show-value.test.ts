import { expect, test } from '@jest/globals';
import { showValue } from './show-value.js';

test.each([
  ['a"b', '"a\\"b"'],
  [{ a: [1, null] }, '{"a":[1,null]}'],
  [undefined, 'nothing'],
  ['x'.repeat(1000), `"${'x'.repeat(199)}…`],
  [JSON.parse(`${'['.repeat(100_000)}${']'.repeat(100_000)}`), 'nested too deeply to be shown'],
])('%#', (value, text) => expect(showValue(value)).toBe(text));

import { expect, test } from '@jest/globals';
import { followsPattern, GROUP_PATTERNS } from './group-patterns.js';

test.each<[string, number, readonly number[], readonly string[]]>([
  ['two zeros in each group of four', 4, [0, 1, -0, 2, 3, 0, 0, 4], ['2:4']],
  ['more zeros than asked for', 8, [0, 0, 0, 0, 0, 1, 0, 0], ['2:4', '4:8']],
  ['zeros that are uneven inside groups of eight', 8, [0, 0, 0, 1, 1, 1, 0, 1], ['4:8']],
  ['one weight too many in the last group', 8, [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1], []],
  ['NaN, which is no zero', 4, [0, NaN, NaN, NaN], []],
  ['rows that are no whole number of groups', 6, [0, 0, 0, 0, 0, 0], []],
  ['groups that would reach into the next row', 2, [0, 0, 0, 0], []],
])('%s', (_what, columns, values, expected) => {
  const found = GROUP_PATTERNS.filter((pattern) => followsPattern(Float32Array.from(values), columns, pattern));
  expect(found.map(({ name }) => name)).toEqual(expected);
});

import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { formatCpuList, parseCpuList } from './cpu-list.js';

test.each([
  ['0', [0]],
  ['0-3,16-17', [0, 1, 2, 3, 16, 17]],
  ['5,3-4\n', [5, 3, 4]],
])('reads %j', (text, cpus) => {
  expect(parseCpuList(text)).toEqual(cpus);
});

test.each(['', ',', '1,', '-1', '3-1', '1-2-3', '0x1', '1.5', 'a', '0-99999999999', '65536', '1,1', '0-3,2', ' 1 , 2 '])(
  'refuses %j',
  (text) => {
    expect(parseCpuList(text)).toBeUndefined();
  },
);

test('what is written is read again, in the same order', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.integer({ min: 0, max: 300 }), { minLength: 1, maxLength: 200 }), (cpus) => {
      expect(parseCpuList(formatCpuList(cpus))).toEqual(cpus);
    }),
  );
});

test('neighbours are written as a range', () => {
  expect(formatCpuList([0, 1, 2, 8, 5, 6])).toBe('0-2,8,5-6');
});

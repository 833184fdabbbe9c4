import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { sumFloat32 } from './sum-float32.js';

test('adds up every value once', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -1000, max: 1000 }), { maxLength: 2000 }), (values) => {
      // Small whole numbers are exact in float32, in any order.
      expect(sumFloat32(Float32Array.from(values)) + 0).toBe(values.reduce((total, value) => total + value, 0));
    }),
  );
});

test('keeps small terms that a sequential sum loses', () => {
  // 2^24 + 1 rounds to 2^24 again, strand by strand the ones are counted first.
  const values = new Float32Array(2048).fill(1);
  values[0] = 2 ** 24;
  const sequential = values.reduce((total, value) => Math.fround(total + value), 0);
  expect(sequential).toBe(2 ** 24);
  expect(sumFloat32(values)).toBeGreaterThan(2 ** 24 + 1900);
});

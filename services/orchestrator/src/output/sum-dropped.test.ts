import { describe, expect, test } from '@jest/globals';
import { sumDropped } from './sum-dropped.js';

const bytesOf = (...counts: number[]): Uint8Array => new Uint8Array(Int32Array.from(counts).buffer);

describe('sumDropped', () => {
  test('adds up rows that are as their record says', () => {
    expect(sumDropped('w', Int32Array.of(1, 0, 4), bytesOf(1, 0, 4))).toBe(5);
  });

  test('names the row whose count contradicts the mask', () => {
    expect(() => sumDropped('w', Int32Array.of(0, 1, 0), bytesOf(0, 2, 0))).toThrow(/w: row 1 .* drops 1 .* says 2/);
  });

  test('refuses a record of another number of rows', () => {
    expect(() => sumDropped('w', Int32Array.of(0, 1), bytesOf(0))).toThrow(/4 bytes of row counts, the mask needs 8/);
  });
});

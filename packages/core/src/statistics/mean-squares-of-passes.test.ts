import { describe, expect, test } from '@jest/globals';
import { InputSite } from '@secateur/proto/statistics';
import { meanSquaresOfPasses } from './mean-squares-of-passes.js';
import type { ReducedSite } from './reduce-statistics.js';

/** A pass at an odd offset of a larger buffer, as received bytes may be. */
function pass(...meanSquares: readonly number[]): ReducedSite {
  const bytes = new Uint8Array(4 * meanSquares.length + 1);
  bytes.set(new Uint8Array(Float32Array.from(meanSquares).buffer), 1);
  const qualityInputs = new Uint8Array(0);
  return { site: InputSite.FEED_FORWARD_INPUT, columns: meanSquares.length, samples: 1, meanSquares: bytes.subarray(1), qualityInputs };
}

const valuesOf = (bytes: Uint8Array): number[] => [...new Float32Array(Uint8Array.from(bytes).buffer)];

describe('meanSquaresOfPasses', () => {
  const passes = [pass(1, 10), pass(3, 50)];

  test('of the first projection of an input are those of the first pass, of the others the mean of all', () => {
    expect(valuesOf(meanSquaresOfPasses(passes, true))).toEqual([1, 10]);
    expect(valuesOf(meanSquaresOfPasses(passes, false))).toEqual([2, 30]);
  });

  test('of a single pass are its own bytes, whichever projection it is', () => {
    expect(meanSquaresOfPasses(passes.slice(1), true)).toBe(passes[1]!.meanSquares);
    expect(meanSquaresOfPasses(passes.slice(1), false)).toBe(passes[1]!.meanSquares);
  });

  test('of no pass are an error', () => {
    expect(() => meanSquaresOfPasses([], true)).toThrow(expect.objectContaining({ reason: 'INTERNAL' }));
  });
});

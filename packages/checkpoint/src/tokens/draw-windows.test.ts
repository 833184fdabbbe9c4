import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { drawWindows, type TokenizedDocuments } from './draw-windows.js';

/** Documents of the given lengths; a token tells its document and place. */
function makeDocuments(lengths: readonly number[], reads: number[] = []): TokenizedDocuments {
  return {
    name: 'text.jsonl',
    count: lengths.length,
    read: (index) => {
      reads.push(index);
      return Promise.resolve(Int32Array.from({ length: lengths[index]! }, (_, place) => index * 1_000_000 + place));
    },
  };
}

describe('drawWindows', () => {
  test('draws the same on every machine', async () => {
    // Numbers of MT19937: any change here changes what users get for a seed.
    const starts = async (seed: number): Promise<number[]> =>
      [...(await drawWindows(makeDocuments([1000, 3, 500]), 8, 4, seed)).ids].filter((_, index) => index % 4 === 0);
    expect(await starts(0)).toEqual([55, 304, 2000331, 2000055, 367, 94, 2000119, 2000296]);
    expect(await starts(2 ** 32 + 5)).toEqual([2000302, 2000453, 3, 430, 2000058, 399, 2000110, 2000039]);
  });

  test('draws every long document about as often, and every place in it', async () => {
    const { ids: windows, documents } = await drawWindows(makeDocuments([12, 10, 11, 2, 30]), 3000, 10, 1);
    expect(documents).toBe(3);
    const starts = Array.from({ length: 3000 }, (_, sample) => windows[sample * 10]!);
    const counts = [0, 1, 2, 3, 4].map((index) => starts.filter((start) => Math.floor(start / 1_000_000) === index).length);
    expect([counts[1], counts[3]]).toEqual([0, 0]);
    for (const count of [counts[0]!, counts[2]!, counts[4]!]) expect(Math.abs(count - 1000)).toBeLessThan(120);
    // A document of n tokens has the starts 0 to n - 11.
    expect(new Set(starts.filter((start) => start >= 4_000_000)).size).toBe(20);
    expect(Math.max(...starts)).toBe(4_000_019);
    expect(new Set(starts.filter((start) => start < 1_000_000))).toEqual(new Set([0, 1]));
  });

  test('reads a document once as long as it can keep it', async () => {
    const reads: number[] = [];
    await drawWindows(makeDocuments([20, 5, 20, 5], reads), 100, 8, 3);
    expect(reads.sort()).toEqual([0, 1, 2, 3]);
  });

  test('gives whole windows of single documents, or says that there are none', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(20), { maxLength: 8 }),
        fc.integer({ min: 1, max: 15 }),
        fc.maxSafeNat(),
        async (lengths, sequenceLength, seed) => {
          const drawing = drawWindows(makeDocuments(lengths), 5, sequenceLength, seed);
          if (!lengths.some((length) => length > sequenceLength)) {
            await expect(drawing).rejects.toThrow(/text.jsonl: /);
            return;
          }
          const { ids: windows } = await drawing;
          for (let sample = 0; sample < 5; sample++) {
            const window = [...windows.subarray(sample * sequenceLength, (sample + 1) * sequenceLength)];
            expect(window).toEqual(window.map((_, place) => window[0]! + place));
            expect((window.at(-1)! % 1_000_000) + 1).toBeLessThan(lengths[Math.floor(window[0]! / 1_000_000)]!);
          }
        },
      ),
      { numRuns: 200, seed: 20250516 },
    ));
});

import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { InputSite, type SiteStatistics } from '@secateur/proto/statistics';
import { reduceStatistics } from './reduce-statistics.js';

/** At an odd offset of a larger buffer, as decoded messages are. */
function bytesOf(values: Float64Array | Float32Array): Uint8Array {
  const bytes = new Uint8Array(values.byteLength + 5);
  bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), 3);
  return bytes.subarray(3, 3 + values.byteLength);
}

function statistics(site: InputSite, sums: readonly number[], qualityInputs: readonly number[]): SiteStatistics {
  return { site, sumsOfSquares: bytesOf(Float64Array.from(sums)), qualityInputs: bytesOf(Float32Array.from(qualityInputs)) };
}

function float32(bytes: Uint8Array): number[] {
  return [...new Float32Array(Uint8Array.from(bytes).buffer)];
}

const SITE = InputSite.ATTENTION_INPUT;

describe('reduceStatistics', () => {
  test('adds sums in group order, divides by samples and gathers quality inputs in sample order', () => {
    const byGroup = new Map([
      [1, [statistics(SITE, [3, 30], [5, 6])]],
      [0, [statistics(SITE, [1, 10], [1, 2, 3, 4])]],
    ]);
    const [reduced] = reduceStatistics(byGroup);
    expect(reduced).toMatchObject({ site: SITE, columns: 2, samples: 3 });
    expect(float32(reduced!.meanSquares)).toEqual([Math.fround(4 / 3), Math.fround(40 / 3)]);
    expect(float32(reduced!.qualityInputs)).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test('divides by samples, of which each may have several quality inputs', () => {
    const byGroup = new Map([
      [0, [statistics(SITE, [1, 10], [1, 2, 3, 4, 5, 6, 7, 8])]],
      [1, [statistics(SITE, [3, 30], [9, 10, 11, 12])]],
    ]);
    const [reduced] = reduceStatistics(byGroup, 2);
    expect(reduced).toMatchObject({ columns: 2, samples: 3 });
    expect(float32(reduced!.meanSquares)).toEqual([Math.fround(4 / 3), Math.fround(40 / 3)]);
    expect(float32(reduced!.qualityInputs)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    expect(() => reduceStatistics(byGroup, 4)).toThrow(expect.objectContaining({ reason: 'CORRUPT_DATA' }));
  });

  test('rounds once, at the end', () => {
    const tiny = 2 ** -24;
    const groups = [1, tiny, tiny, tiny].map((sum, index): [number, SiteStatistics[]] => [index, [statistics(SITE, [sum], [0])]]);
    expect(float32(reduceStatistics(new Map(groups))[0]!.meanSquares)).toEqual([Math.fround((1 + 3 * tiny) / 4)]);
  });

  test('keeps sites apart, whatever their order in a group', () => {
    const other = InputSite.FEED_FORWARD_HIDDEN;
    const byGroup = new Map([
      [0, [statistics(SITE, [1], [1]), statistics(other, [5, 5, 5], [7, 8, 9])]],
      [1, [statistics(other, [1, 1, 1], [4, 5, 6]), statistics(SITE, [3], [2])]],
    ]);
    const reduced = reduceStatistics(byGroup);
    expect(reduced.map(({ site, columns, meanSquares }) => [site, columns, float32(meanSquares)])).toEqual([
      [SITE, 1, [2]],
      [other, 3, [3, 3, 3]],
    ]);
  });

  test('gives the same bytes in whatever order groups arrive', () => {
    const groups = fc.array(fc.tuple(fc.double({ noNaN: true, min: 0, max: 1e12 }), fc.float({ noNaN: true })), {
      minLength: 1,
      maxLength: 12,
    });
    fc.assert(
      fc.property(
        groups.chain((values) => fc.tuple(fc.constant(values), fc.shuffledSubarray([...values.keys()], { minLength: values.length }))),
        ([values, arrival]) => {
          const entry = (index: number): [number, SiteStatistics[]] => [
            index,
            [statistics(SITE, [values[index]![0]], [values[index]![1]])],
          ];
          expect(reduceStatistics(new Map(arrival.map(entry)))).toEqual(reduceStatistics(new Map([...values.keys()].map(entry))));
        },
      ),
    );
  });

  test.each<[string, SiteStatistics[]]>([
    ['lacks a site', []],
    ['has another width', [statistics(SITE, [1, 2, 3], [1, 2, 3])]],
    ['has inputs that are not samples x columns', [statistics(SITE, [1, 2], [1, 2, 3])]],
  ])('refuses a group that %s', (_, sites) => {
    const byGroup = new Map([
      [0, [statistics(SITE, [1, 2], [1, 2])]],
      [1, sites],
    ]);
    expect(() => reduceStatistics(byGroup)).toThrow(expect.objectContaining({ reason: 'CORRUPT_DATA' }));
  });

  test.each([0, 7, 12])('refuses sums of squares of %d bytes', (bytes) => {
    const broken = { site: SITE, sumsOfSquares: new Uint8Array(bytes), qualityInputs: new Uint8Array(8) };
    expect(() => reduceStatistics(new Map([[0, [broken]]]))).toThrow(expect.objectContaining({ reason: 'CORRUPT_DATA' }));
  });

  test('refuses to reduce nothing', () => {
    expect(() => reduceStatistics(new Map())).toThrow(expect.objectContaining({ reason: 'INVALID_DATA' }));
  });
});

import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Score } from '@secateur/proto/allocation';
import type { ReferenceProjection } from './projection.js';
import { droppedCount, packMask, sortRows } from './row-order.js';

function projectionOf(weights: readonly (readonly number[])[], meanSquares: readonly number[]): ReferenceProjection {
  return {
    rows: weights.length,
    columns: meanSquares.length,
    samples: 1,
    weights: Float32Array.from(weights.flat()),
    meanSquares: Float32Array.from(meanSquares),
    qualityInputs: new Float32Array(meanSquares.length),
  };
}

describe('sortRows', () => {
  test('ranks by weight times root mean square, or by weight alone', () => {
    const projection = projectionOf([[3, -2, 1]], [1, 4, 100]);
    expect(sortRows(projection, Score.WANDA)).toEqual([Uint32Array.of(0, 1, 2)]);
    expect(sortRows(projection, Score.MAGNITUDE)).toEqual([Uint32Array.of(2, 1, 0)]);
  });

  test('keeps equal scores in column order: dead inputs, equal weights, both zeros', () => {
    const [row] = sortRows(projectionOf([[5, 1, -1, 0, -0, 9, 1]], [0, 1, 1, 1, 1, 0, 1]), Score.WANDA);
    expect(row).toEqual(Uint32Array.of(0, 3, 4, 5, 1, 2, 6));
  });

  test('compares scores in float32', () => {
    // In float64 the first product is the larger one.
    const [weight, meanSquare] = [1 + 2 ** -23, 1 + 2 ** -22];
    const larger = Math.abs(Math.fround(weight)) * Math.sqrt(meanSquare);
    const rounded = Math.fround(larger);
    expect(larger).toBeGreaterThan(rounded);
    expect(sortRows(projectionOf([[weight, rounded]], [meanSquare, 1]), Score.WANDA)).toEqual([Uint32Array.of(0, 1)]);
  });
});

describe('droppedCount', () => {
  test.each([
    [192, 0.7, 134],
    [256, 0.7, 179],
    [10, 0.3, 3],
    [100, 0.29, 29],
    [96, 0.01, 0],
    [96, -0.01, 0],
    [96, 1.01, 96],
  ])('%d columns at %d drop %d', (columns, sparsity, expected) => {
    expect(droppedCount(columns, sparsity)).toBe(expected);
  });
});

test('packMask marks the first of each order, least significant bit first, rows padded to bytes', () => {
  const orders = [Uint32Array.of(9, 0, 3, 1, 2, 4, 5, 6, 7, 8), Uint32Array.of(8, 7, 6, 5, 4, 3, 2, 1, 0, 9)];
  expect(packMask(orders, Int32Array.of(3, 2), 10)).toEqual(Uint8Array.of(0b1001, 0b10, 0b1000_0000, 0b1));
});

test('every row drops exactly its count, and never a weight that scores above a kept one', () => {
  const shapes = fc.integer({ min: 1, max: 20 }).chain((columns) =>
    fc.record({
      columns: fc.constant(columns),
      weights: fc.array(fc.integer({ min: -3, max: 3 }), { minLength: 2 * columns, maxLength: 2 * columns }),
      counts: fc.tuple(fc.nat(columns), fc.nat(columns)),
    }),
  );
  fc.assert(
    fc.property(shapes, ({ columns, weights, counts }) => {
      const projection = projectionOf([weights.slice(0, columns), weights.slice(columns)], Array<number>(columns).fill(1));
      const mask = packMask(sortRows(projection, Score.MAGNITUDE), Int32Array.from(counts), columns);
      for (const row of [0, 1] as const) {
        const scores = weights.slice(row * columns, (row + 1) * columns).map(Math.abs);
        const isDropped = (column: number): boolean => ((mask[row * Math.ceil(columns / 8) + (column >> 3)]! >> (column & 7)) & 1) === 1;
        const dropped = scores.filter((_, column) => isDropped(column));
        const kept = scores.filter((_, column) => !isDropped(column));
        expect(dropped).toHaveLength(counts[row]);
        expect(Math.max(-1, ...dropped)).toBeLessThanOrEqual(Math.min(4, ...kept));
      }
    }),
  );
});

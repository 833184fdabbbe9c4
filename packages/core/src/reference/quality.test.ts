import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Score } from '@secateur/proto/allocation';
import type { ReferenceProjection } from './projection.js';
import { compareByProducts } from './pruned-outputs.js';
import { layerQuality, rowQuality, variance, type LayerMetric, type OutputSums } from './quality.js';
import { compareByCurves } from './quality-curves.js';
import { sortRows } from './row-order.js';

/** Two rows of two weights, two samples; the identity as inputs, so that outputs are the weights: Y = [[3, 4], [1, -2]]. */
const PROJECTION: ReferenceProjection = {
  rows: 2,
  columns: 2,
  samples: 2,
  weights: Float32Array.of(3, 4, 1, -2),
  meanSquares: Float32Array.of(1, 1),
  qualityInputs: Float32Array.of(1, 0, 0, 1),
};
/** Each row drops its smaller weight: Ŷ = [[0, 4], [0, -2]]. */
const ONE_OF_EACH = Int32Array.of(1, 1);
const comparison = compareByProducts(PROJECTION, sortRows(PROJECTION, Score.MAGNITUDE))(ONE_OF_EACH);

function decibels(ratio: number): number {
  return 10 * Math.log10(ratio);
}

describe('metrics of a known output', () => {
  test.each<[LayerMetric, number]>([
    ['cosim_flat', 20 / Math.sqrt(30 * 20)],
    ['cosim_dim', (0.8 + 2 / Math.sqrt(5)) / 2],
    ['cosim_sample', (0 + 1) / 2],
    ['mse', -10 / 4],
    ['mse_dim', -(9 / 2 + 1 / 2) / 2],
    ['mae', -4 / 4],
    ['snr', decibels(7.5 / 2.5)],
    ['psnr_flat', decibels(16 / 2.5)],
    ['psnr_dim', (decibels(16 / 4.5) + decibels(4 / 0.5)) / 2],
    ['psnr_sample', (decibels(9 / 5) + decibels(16 / 1e-10)) / 2],
    ['pass', 1],
  ])('%s', (metric, expected) => {
    expect(layerQuality(metric, comparison)).toBeCloseTo(expected, 7);
  });

  test('rows', () => {
    const [first] = comparison.rows;
    expect(rowQuality('cosim', first!)).toBeCloseTo(0.8, 7);
    expect(rowQuality('mse', first!)).toBe(-4.5);
    expect(rowQuality('psnr', first!)).toBeCloseTo(decibels(16 / 4.5), 7);
  });

  test('nothing dropped has no noise, everything dropped no cosine', () => {
    const compare = compareByProducts(PROJECTION, sortRows(PROJECTION, Score.MAGNITUDE));
    expect(layerQuality('snr', compare(Int32Array.of(0, 0)))).toBe(Infinity);
    expect(layerQuality('cosim_flat', compare(Int32Array.of(2, 2)))).toBe(0);
  });
});

test('silence has 0 dB as long as nothing is heard instead of it', () => {
  const sums = { values: 4, innerProduct: 0, denseSquares: 0, prunedSquares: 0, squaredErrors: 0, peakSquare: 0 };
  expect(rowQuality('psnr', sums)).toBe(0);
  expect(rowQuality('psnr', { ...sums, prunedSquares: 4, squaredErrors: 4 })).toBeCloseTo(decibels(1e-10), 7);
});

test('variance is unbiased', () => {
  expect(variance([1, 2, 3, 4])).toBeCloseTo(5 / 3, 12);
  expect(variance([7])).toBe(0);
});

const projections = fc
  .record({ rows: fc.integer({ min: 1, max: 4 }), columns: fc.integer({ min: 1, max: 12 }), samples: fc.integer({ min: 1, max: 6 }) })
  .chain(({ rows, columns, samples }) => {
    const floats = (length: number, min: number): fc.Arbitrary<Float32Array> =>
      fc.float32Array({ minLength: length, maxLength: length, min, max: 8, noNaN: true });
    return fc.record({
      projection: fc.record({
        rows: fc.constant(rows),
        columns: fc.constant(columns),
        samples: fc.constant(samples),
        weights: floats(rows * columns, -8),
        meanSquares: floats(columns, 0),
        qualityInputs: floats(samples * columns, -8),
      }),
      counts: fc.array(fc.nat(columns), { minLength: rows, maxLength: rows }).map((counts) => Int32Array.from(counts)),
    });
  });

/** Squared norm that a row's output would have if none of its terms cancelled: the size that rounding errors are relative to. */
function squaresOfTerms({ columns, samples, weights, qualityInputs }: ReferenceProjection, row: number): number {
  let squares = 0;
  for (let sample = 0; sample < samples; sample += 1) {
    let terms = 0;
    for (let column = 0; column < columns; column += 1) {
      terms += Math.abs(weights[row * columns + column]! * qualityInputs[sample * columns + column]!);
    }
    squares += terms * terms;
  }
  return squares;
}

function largestDifference(left: OutputSums, right: OutputSums): number {
  const keys = ['innerProduct', 'denseSquares', 'prunedSquares', 'squaredErrors', 'peakSquare'] as const;
  return Math.max(...keys.map((key) => Math.abs(left[key] - right[key])));
}

test('curves give at every count what products give', () => {
  fc.assert(
    fc.property(projections, ({ projection, counts }) => {
      const orders = sortRows(projection, Score.WANDA);
      const byCurves = compareByCurves(projection, orders)(counts).rows;
      for (const [row, sums] of compareByProducts(projection, orders)(counts).rows.entries()) {
        const rounding = 1e-14 * squaresOfTerms(projection, row) + Number.MIN_VALUE;
        expect(largestDifference(sums, byCurves[row]!)).toBeLessThanOrEqual(rounding);
      }
    }),
  );
});

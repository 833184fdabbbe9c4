import { describe, expect, test } from '@jest/globals';
import type { OutputComparison, OutputSums } from './quality.js';
import { searchRows, type ReferenceAllocation, type TrimSearchOptions } from './trim-search.js';

const OPTIONS: TrimSearchOptions = {
  target: 0.5,
  iterations: 1,
  learningRates: [0.01, 0.02, 0.04],
  negativeLearningRates: [-0.01, -0.02],
  layerMetric: 'mse',
  rowMetric: 'mse',
};

function sumsOfError(squaredErrors: number): OutputSums {
  return { values: 1, innerProduct: 0, denseSquares: 0, prunedSquares: 0, squaredErrors, peakSquare: 0 };
}

/**
 * Searches two rows of 1000 weights, of which the first keeps its quality better, when runs end with the given layer errors. Runs of one
 * step each; how many weights the first row drops more tells the rate that is measured.
 */
function searchWith(errorsByRate: Readonly<Record<string, number>>): { tried: number[]; found: ReferenceAllocation } {
  const tried: number[] = [];
  const compare = (counts: Int32Array): OutputComparison => {
    const rate = (counts[0]! - 500) / 1000;
    if (rate !== 0) tried.push(Number(rate.toFixed(2)));
    const error = errorsByRate[rate.toFixed(2)] ?? 10;
    return { rows: [sumsOfError(error - 1), sumsOfError(error + 1)], samples: () => [], absoluteErrors: () => 0 };
  };
  return { tried, found: searchRows(2, 1000, compare, OPTIONS) };
}

describe('the order of learning rates', () => {
  test('goes on while runs get better and ends with the first that does not', () => {
    const { tried, found } = searchWith({ '0.01': 9, '0.02': 9 });
    expect(tried).toEqual([0.01, 0.02]);
    expect(found).toMatchObject({ learningRate: 0.01, bestStep: 0, baselineQuality: -10, bestQuality: -9 });
  });

  test('tries the second rate though the first brings nothing', () => {
    const { tried, found } = searchWith({ '0.02': 8 });
    expect(tried).toEqual([0.01, 0.02, 0.04]);
    expect(found.learningRate).toBe(0.02);
  });

  test('turns to negative rates when none of the others wins', () => {
    const { tried, found } = searchWith({ '-0.02': 7 });
    expect(tried).toEqual([0.01, 0.02, -0.01, -0.02]);
    expect(found.learningRate).toBe(-0.02);
  });

  test('leaves uniform when nothing is strictly better', () => {
    const { tried, found } = searchWith({});
    expect(tried).toEqual([0.01, 0.02, -0.01, -0.02]);
    expect(found).toMatchObject({ learningRate: undefined, bestStep: undefined, bestQuality: -10 });
    expect(found.droppedPerRow).toEqual(Int32Array.of(500, 500));
  });
});

describe('sparsities', () => {
  /** Row qualities that never change. */
  const compareFixed =
    (...errors: readonly number[]) =>
    (): OutputComparison => ({ rows: errors.map(sumsOfError), samples: () => [], absoluteErrors: () => 0 });

  test('keep their mean at the target', () => {
    let step = 0;
    const improving = (): OutputComparison => ({ ...compareFixed(1, 2, 4)(), rows: [1, 2, 4].map((error) => sumsOfError(error / ++step)) });
    const { rowSparsities } = searchRows(3, 1000, improving, { ...OPTIONS, iterations: 30, learningRates: [0.16] });
    expect(rowSparsities.reduce((sum, sparsity) => sum + sparsity, 0) / 3).toBeCloseTo(0.5, 6);
    expect(rowSparsities[0]).toBeGreaterThan(rowSparsities[2]!);
  });

  test('a target of 0 or less counts as 0.01', () => {
    for (const target of [0, -1]) {
      const { rowSparsities } = searchRows(2, 1000, compareFixed(1, 1), { ...OPTIONS, target });
      expect([...rowSparsities]).toEqual([Math.fround(0.01), Math.fround(0.01)]);
    }
  });

  test('uniform above the clip comes back to the target', () => {
    const { rowSparsities, droppedPerRow } = searchRows(2, 1000, compareFixed(1, 1), { ...OPTIONS, target: 0.97 });
    expect([...rowSparsities]).toEqual([Math.fround(0.97), Math.fround(0.97)]);
    expect(droppedPerRow).toEqual(Int32Array.of(970, 970));
  });
});

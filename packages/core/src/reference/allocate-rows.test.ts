import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { Score } from '@secateur/proto/allocation';
import { TensorFile } from '../../test/safetensors.js';
import { allocateRowsByReference, type ReferenceOptions, type ReferenceRows } from './allocate-rows.js';
import type { ReferenceProjection } from './projection.js';
import type { LayerMetric, RowMetric } from './quality.js';

const FIXTURES = fileURLToPath(new URL('../../../../tests/fixtures/trim_search/', import.meta.url));

/** Metrics that are no function of the quality curves. */
const NEEDS_OUTPUTS: ReadonlySet<LayerMetric> = new Set<LayerMetric>(['cosim_sample', 'psnr_sample', 'mae']);

interface TrimCase {
  readonly file: string;
  readonly rows: number;
  readonly columns: number;
  readonly samples: number;
  readonly options: {
    readonly qmetric: LayerMetric;
    readonly qmetric_dimwise: RowMetric;
    readonly iterations: number;
    readonly forbid_neg_lr: boolean;
    readonly score: 'wanda' | 'magnitude';
    readonly target: number;
  };
  readonly expected: {
    readonly baseline_metric: number;
    readonly best_metric: number;
    readonly learning_rate: number | null;
    readonly best_iter: number;
    readonly starting_var: number;
    readonly ending_var: number;
  };
}

const { cases } = JSON.parse(readFileSync(`${FIXTURES}cases.json`, 'utf8')) as { cases: readonly TrimCase[] };

function readProjection({ rows, columns, samples }: TrimCase, file: TensorFile): ReferenceProjection {
  const inputs = file.float32('X');
  const qualityInputs = new Float32Array(inputs.length);
  for (let column = 0; column < columns; column++) {
    for (let sample = 0; sample < samples; sample++) qualityInputs[sample * columns + column] = inputs[column * samples + sample]!;
  }
  return { rows, columns, samples, weights: file.float32('W'), meanSquares: file.float32('scaler'), qualityInputs };
}

function readOptions({ options }: TrimCase): Omit<ReferenceOptions, 'evaluation'> {
  return {
    target: options.target,
    iterations: options.iterations,
    learningRates: [0.01, 0.02, 0.04, 0.08, 0.12, 0.16],
    negativeLearningRates: options.forbid_neg_lr ? [] : [-0.01, -0.02, -0.04],
    layerMetric: options.qmetric,
    rowMetric: options.qmetric_dimwise,
    score: options.score === 'wanda' ? Score.WANDA : Score.MAGNITUDE,
  };
}

function relativeDifference(value: number, expected: number): number {
  return value === expected ? 0 : Math.abs(value - expected) / Math.abs(expected);
}

function largestDifference(values: Float32Array, expected: Float32Array): number {
  return values.reduce((largest, value, row) => Math.max(largest, Math.abs(value - expected[row]!)), 0);
}

function decisions({ learningRate, bestStep, droppedPerRow, mask }: ReferenceRows): unknown {
  return { learningRate: learningRate ?? null, bestStep: bestStep ?? 0, droppedPerRow, mask };
}

describe.each(cases)('the decisions of the published code: $file', (recorded) => {
  const { expected, options } = recorded;
  const file = new TensorFile(FIXTURES + recorded.file);
  const allocate = (evaluation: ReferenceOptions['evaluation']): ReferenceRows =>
    allocateRowsByReference(readProjection(recorded, file), { ...readOptions(recorded), evaluation });
  const byProducts = allocate('products');

  test('are taken', () => {
    expect(decisions(byProducts)).toEqual({
      learningRate: expected.learning_rate,
      bestStep: expected.best_iter,
      droppedPerRow: file.int32('expected.dropped_per_row'),
      mask: file.uint8('expected.mask'),
    });
    // A step amplifies the float32 noise of published row qualities where these lie close together.
    expect(largestDifference(byProducts.rowSparsities, file.float32('expected.row_sparsities'))).toBeLessThan(2e-6);
  });

  test('come from the same qualities', () => {
    expect(relativeDifference(byProducts.baselineQuality, expected.baseline_metric)).toBeLessThan(1e-6);
    expect(relativeDifference(byProducts.bestQuality, expected.best_metric)).toBeLessThan(1e-6);
    // The noise of float32 cosines alone has a variance of up to 1e-14.
    expect(Math.abs(byProducts.varianceBefore - expected.starting_var)).toBeLessThan(1e-4 * expected.starting_var + 1e-13);
    expect(Math.abs(byProducts.varianceAfter - expected.ending_var)).toBeLessThan(1e-4 * expected.ending_var + 1e-13);
  });

  if (NEEDS_OUTPUTS.has(options.qmetric)) {
    test('cannot be had from curves', () => {
      expect(() => allocate('curves')).toThrow(options.qmetric);
    });
  } else {
    test('are the same by curves', () => {
      const byCurves = allocate('curves');
      expect(decisions(byCurves)).toEqual(decisions(byProducts));
      expect(relativeDifference(byCurves.bestQuality, byProducts.bestQuality)).toBeLessThan(1e-12);
    });
  }
});

test('all cases were there', () => {
  expect(cases).toHaveLength(88);
});

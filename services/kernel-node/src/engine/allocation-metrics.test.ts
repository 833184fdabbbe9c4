/** The engine's search in every metric against the float64 reference. */
import { afterAll, describe, expect, test } from '@jest/globals';
import { allocateRowsByReference, type LayerMetric, type ReferenceProjection, type ReferenceRows, type RowMetric } from '@secateur/core';
import { openEngine, type AllocatedRows, type AllocationOptions } from '@secateur/native';
import { Score } from '@secateur/proto/allocation';
import fc from 'fast-check';

const LAYER_METRICS: readonly LayerMetric[] = [
  'cosim_flat',
  'cosim_dim',
  'cosim_sample',
  'mse',
  'mse_dim',
  'mae',
  'snr',
  'psnr_flat',
  'psnr_dim',
  'psnr_sample',
  'pass',
];
const ROW_METRICS: readonly RowMetric[] = ['cosim', 'mse', 'psnr'];

interface Problem {
  readonly projection: ReferenceProjection;
  readonly target: number;
  readonly iterations: number;
  readonly learningRates: readonly number[];
  readonly negativeLearningRates: readonly number[];
}

const engine = openEngine({ backend: 'cpu', threads: 2, memoryBudgetBytes: 2 ** 28 });
afterAll(() => engine.close());

const bytesOf = (values: Float32Array): Uint8Array => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

async function allocate({ projection, target, ...search }: Problem, layer: LayerMetric, row: RowMetric): Promise<AllocatedRows> {
  const { rows, columns, samples, weights, meanSquares, qualityInputs } = projection;
  const statistics = { samples, columns, meanSquares: bytesOf(meanSquares), qualityInputs: bytesOf(qualityInputs) };
  const options: AllocationOptions = {
    ...search,
    score: 'wanda',
    allocation: 'trim',
    layerQuality: layer.replace('_', '-') as AllocationOptions['layerQuality'],
    rowQuality: row,
    pattern: null,
    rowSparsities: null,
  };
  return (await engine.allocateMatrix(weights, rows, columns, target, statistics, options)).value;
}

function allocateByReference({ projection, ...search }: Problem, layerMetric: LayerMetric, rowMetric: RowMetric): ReferenceRows {
  return allocateRowsByReference(projection, { ...search, layerMetric, rowMetric, score: Score.WANDA, evaluation: 'products' });
}

/** Normally distributed, as weights are; mulberry32 of a seed, so that what fails can be found again. */
function normalValues(length: number, scale: number, seed: number): Float32Array {
  let state = seed;
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return Float32Array.from({ length }, () => scale * Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
}

const problems: fc.Arbitrary<Problem> = fc
  .record({ rows: fc.integer({ min: 1, max: 7 }), columns: fc.integer({ min: 1, max: 24 }), samples: fc.integer({ min: 1, max: 20 }) })
  .chain(({ rows, columns, samples }) =>
    fc
      .record({
        seed: fc.nat(),
        weightScale: fc.constantFrom(0.02, 1),
        inputScale: fc.constantFrom(0.1, 1, 40),
        deadRows: fc.array(fc.nat(rows - 1), { maxLength: 2 }),
        deadColumns: fc.array(fc.nat(columns - 1), { maxLength: 3 }),
        target: fc.constantFrom(0.3, 0.5, 0.7, 0.9),
        iterations: fc.integer({ min: 1, max: 6 }),
        learningRates: fc.constantFrom([0.01, 0.02, 0.04, 0.08, 0.12, 0.16], [0.1], [0.16, 0.04, 0.3]),
        negativeLearningRates: fc.constantFrom([-0.01, -0.02, -0.04], [-0.2, -0.1], []),
      })
      .map(({ seed, weightScale, inputScale, deadRows, deadColumns, ...search }) => {
        const weights = normalValues(rows * columns, weightScale, seed);
        const qualityInputs = normalValues(samples * columns, inputScale, ~seed);
        for (const row of deadRows) weights.fill(0, row * columns, (row + 1) * columns);
        // Where only dead inputs are dropped, rounding alone would tell candidates apart, also the reference's.
        for (const column of deadColumns.slice(0, columns / 2)) {
          for (let sample = 0; sample < samples; sample++) qualityInputs[sample * columns + column] = 0;
        }
        const meanSquares = Float32Array.from({ length: columns }, (_, column) => {
          let sum = 0;
          for (let sample = 0; sample < samples; sample++) sum += qualityInputs[sample * columns + column]! ** 2;
          return sum / samples;
        });
        return { ...search, projection: { rows, columns, samples, weights, meanSquares, qualityInputs } };
      }),
  );

const decisions = ({ learningRate, bestStep, droppedPerRow, mask }: AllocatedRows | ReferenceRows): unknown => ({
  learningRate: learningRate ?? null,
  bestStep: bestStep ?? null,
  droppedPerRow,
  mask: Buffer.from(mask),
});

const difference = (value: number, expected: number): number =>
  value === expected ? 0 : Math.abs(value - expected) / Math.max(1, Math.abs(expected));

describe.each(LAYER_METRICS)('%s', (layer) => {
  test.each(ROW_METRICS)('and rows by %s', async (row) => {
    await fc.assert(
      fc.asyncProperty(problems, async (problem) => {
        const found = await allocate(problem, layer, row);
        const expected = allocateByReference(problem, layer, row);
        expect(difference(found.baselineQuality, expected.baselineQuality)).toBeLessThan(1e-5);
        expect(decisions(found)).toEqual(decisions(expected));
      }),
      { numRuns: 40, seed: 5 },
    );
  });
});

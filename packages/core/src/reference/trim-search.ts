import { cosine, layerQuality, rowQuality, sum, variance, type LayerMetric, type OutputComparison, type RowMetric } from './quality.js';
import type { CompareOutputs } from './pruned-outputs.js';
import { droppedCount } from './row-order.js';
import { sumFloat32 } from './sum-float32.js';

const LOWEST_TARGET = 0.01;
const HIGHEST_SPARSITY = Math.fround(0.95);
/** Keeps a step finite when all rows are equally good. */
const RANGE_EPSILON = 1e-6;

export interface TrimSearchOptions {
  /** Share of weights to drop. */
  readonly target: number;
  /** Steps per learning rate. */
  readonly iterations: number;
  readonly learningRates: readonly number[];
  /** Tried when none of the others beats uniform. */
  readonly negativeLearningRates: readonly number[];
  readonly layerMetric: LayerMetric;
  readonly rowMetric: RowMetric;
}

/** What the search found. */
export interface ReferenceAllocation {
  /** Layer quality with the same sparsity in every row. */
  readonly baselineQuality: number;
  readonly bestQuality: number;
  /** Absent when uniform won. */
  readonly learningRate: number | undefined;
  /** From 0; absent when uniform won. */
  readonly bestStep: number | undefined;
  /** Variances of the row cosines, in float32 as published, whatever metric steers the search. */
  readonly varianceBefore: number;
  readonly varianceAfter: number;
  readonly rowSparsities: Float32Array;
  readonly droppedPerRow: Int32Array;
}

interface Candidate {
  readonly sparsities: Float32Array;
  readonly comparison: OutputComparison;
  readonly quality: number;
  readonly learningRate?: number;
  readonly step?: number;
}

/** TRIM's search (arXiv 2505.16743) for the sparsity of each row of a projection. */
export function searchRows(rows: number, columns: number, compare: CompareOutputs, options: TrimSearchOptions): ReferenceAllocation {
  const target = Math.fround(options.target > 0 ? options.target : LOWEST_TARGET);

  const measure = (sparsities: Float32Array): Candidate => {
    const comparison = compare(dropCounts(sparsities, columns));
    return { sparsities, comparison, quality: layerQuality(options.layerMetric, comparison) };
  };

  const uniform = measure(new Float32Array(rows).fill(target));

  /** The best step of a run from uniform, if it is strictly better than `toBeat`; otherwise `toBeat`. */
  const run = (learningRate: number, toBeat: Candidate): Candidate => {
    let best = toBeat;
    let current = uniform;
    for (let step = 0; step < options.iterations; step++) {
      const qualities = current.comparison.rows.map((sums) => rowQuality(options.rowMetric, sums));
      current = measure(moveSparsities(current.sparsities, qualities, learningRate, target));
      if (current.quality > best.quality) best = { ...current, learningRate, step };
    }
    return best;
  };

  /** Tries rates up to the first that brings no gain over those before it in the list; the first rate has none before it. */
  const tryRates = (learningRates: readonly number[]): Candidate => {
    let best = uniform;
    for (const [index, learningRate] of learningRates.entries()) {
      const next = run(learningRate, best);
      if (next === best && index > 0) break;
      best = next;
    }
    return best;
  };

  let best = tryRates(options.learningRates);
  if (best === uniform) best = tryRates(options.negativeLearningRates);

  const rowSparsities = clipAndRecentre(best.sparsities, target);
  return {
    baselineQuality: uniform.quality,
    bestQuality: best.quality,
    learningRate: best.learningRate,
    bestStep: best.step,
    varianceBefore: varianceOfCosines(uniform.comparison),
    varianceAfter: varianceOfCosines(best.comparison),
    rowSparsities,
    droppedPerRow: dropCounts(rowSparsities, columns),
  };
}

/** Gives more sparsity to rows that keep their quality well, less when the learning rate is negative. */
function moveSparsities(sparsities: Float32Array, qualities: readonly number[], learningRate: number, target: number): Float32Array {
  const lowest = Math.min(...qualities);
  const range = Math.max(...qualities) - lowest + RANGE_EPSILON;
  const moves = qualities.map((quality) => ((quality - lowest) / range) * (2 * learningRate));
  const mean = sum(moves) / moves.length;
  return clipAndRecentre(
    sparsities.map((sparsity, row) => sparsity + Math.fround(moves[row]! - mean)),
    target,
  );
}

/** Clips to [0, 0.95], then shifts the mean to the target; values may end slightly outside again. */
function clipAndRecentre(sparsities: Float32Array, target: number): Float32Array {
  const clipped = sparsities.map((sparsity) => Math.max(Math.min(sparsity, HIGHEST_SPARSITY), 0));
  const mean = Math.fround(sumFloat32(clipped) / clipped.length);
  return clipped.map((sparsity) => Math.fround(sparsity - mean) + target);
}

function dropCounts(sparsities: Float32Array, columns: number): Int32Array {
  return Int32Array.from(sparsities, (sparsity) => droppedCount(columns, sparsity));
}

function varianceOfCosines({ rows }: OutputComparison): number {
  return variance(rows.map((sums) => Math.fround(cosine(sums))));
}

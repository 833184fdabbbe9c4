import { multiplyRow, type ReferenceProjection } from './projection.js';
import type { OutputComparison, OutputSums } from './quality.js';

/** Compares the outputs when each row drops the first `counts[row]` weights of its order. */
export type CompareOutputs = (counts: Int32Array) => OutputComparison;

/** By definition: the pruned rows times the inputs, as the published search does at every step. A row is computed again when its count moves. */
export function compareByProducts(projection: ReferenceProjection, orders: readonly Uint32Array[]): CompareOutputs {
  const dense = orders.map((_, row) => multiplyRow(projection, row));
  const latest = orders.map((_, row) => ({ count: 0, outputs: dense[row]! }));

  const pruneRow = (row: number, count: number): Float64Array => {
    if (latest[row]!.count !== count) latest[row] = { count, outputs: multiplyRow(projection, row, orders[row]!.subarray(count)) };
    return latest[row]!.outputs;
  };

  return (counts) => {
    const pruned = dense.map((_, row) => pruneRow(row, counts[row]!));
    return {
      rows: dense.map((outputs, row) => sumValues(outputs, pruned[row]!)),
      samples: () =>
        Array.from({ length: projection.samples }, (_, sample) => sumValues(takeSample(dense, sample), takeSample(pruned, sample))),
      absoluteErrors: () =>
        dense.reduce(
          (total, outputs, row) => outputs.reduce((errors, value, sample) => errors + Math.abs(value - pruned[row]![sample]!), total),
          0,
        ),
    };
  };
}

function takeSample(outputs: readonly Float64Array[], sample: number): Float64Array {
  return Float64Array.from(outputs, (row) => row[sample]!);
}

function sumValues(dense: Float64Array, pruned: Float64Array): OutputSums {
  const sums = { values: dense.length, innerProduct: 0, denseSquares: 0, prunedSquares: 0, squaredErrors: 0, peakSquare: 0 };
  for (const [index, value] of dense.entries()) {
    const prunedValue = pruned[index]!;
    sums.innerProduct += value * prunedValue;
    sums.denseSquares += value * value;
    sums.prunedSquares += prunedValue * prunedValue;
    sums.squaredErrors += (value - prunedValue) ** 2;
    sums.peakSquare = Math.max(sums.peakSquare, value * value);
  }
  return sums;
}

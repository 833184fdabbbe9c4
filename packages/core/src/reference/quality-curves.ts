import { SecateurError } from '../errors.js';
import { multiplyRow, type ReferenceProjection } from './projection.js';
import type { CompareOutputs } from './pruned-outputs.js';

/** Sums over the samples for the first k weights of an order, for every k from 0 to all: P is the output of these weights alone. */
interface Sweep {
  /** y·P */
  readonly innerProducts: Float64Array;
  /** ‖P‖² */
  readonly squares: Float64Array;
}

/**
 * The same comparison by look-up: one sweep over a row's order gives its sums at every count. Swept from the low end for what is dropped
 * and from the high end for what is kept, so that nothing is a difference of nearly equal numbers. Metrics over samples and absolute
 * errors are not functions of these sums.
 */
export function compareByCurves(projection: ReferenceProjection, orders: readonly Uint32Array[]): CompareOutputs {
  const inputs = transposeInputs(projection);
  const curves = orders.map((order, row) => {
    const outputs = multiplyRow(projection, row);
    return {
      denseSquares: outputs.reduce((total, value) => total + value * value, 0),
      peakSquare: outputs.reduce((peak, value) => Math.max(peak, value * value), 0),
      dropped: sweepRow(projection, row, order, inputs, outputs),
      kept: sweepRow(projection, row, order.toReversed(), inputs, outputs),
    };
  });
  return (counts) => ({
    rows: curves.map(({ denseSquares, peakSquare, dropped, kept }, row) => {
      const droppedWeights = counts[row]!;
      const keptWeights = projection.columns - droppedWeights;
      return {
        values: projection.samples,
        innerProduct: kept.innerProducts[keptWeights]!,
        denseSquares,
        prunedSquares: kept.squares[keptWeights]!,
        squaredErrors: dropped.squares[droppedWeights]!,
        peakSquare,
      };
    }),
    samples: refuseMetric,
    absoluteErrors: refuseMetric,
  });
}

function refuseMetric(): never {
  throw new SecateurError(
    'INVALID_REQUEST',
    'Quality curves do not hold what cosim_sample, psnr_sample and mae need; compare by products.',
  );
}

function sweepRow(projection: ReferenceProjection, row: number, order: Uint32Array, inputs: Float32Array, outputs: Float64Array): Sweep {
  const { columns, samples, weights } = projection;
  const partial = new Float64Array(samples);
  const sweep = { innerProducts: new Float64Array(columns + 1), squares: new Float64Array(columns + 1) };
  for (const [index, column] of order.entries()) {
    const weight = weights[row * columns + column]!;
    let innerProduct = 0;
    let squares = 0;
    for (let sample = 0; sample < samples; sample++) {
      const value = partial[sample]! + weight * inputs[column * samples + sample]!;
      partial[sample] = value;
      innerProduct += outputs[sample]! * value;
      squares += value * value;
    }
    sweep.innerProducts[index + 1] = innerProduct;
    sweep.squares[index + 1] = squares;
  }
  return sweep;
}

/** [columns, samples] */
function transposeInputs({ columns, samples, qualityInputs }: ReferenceProjection): Float32Array {
  const transposed = new Float32Array(columns * samples);
  for (let sample = 0; sample < samples; sample++) {
    for (let column = 0; column < columns; column++) transposed[column * samples + sample] = qualityInputs[sample * columns + column]!;
  }
  return transposed;
}

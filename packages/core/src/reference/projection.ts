/** What the rows of one projection are allocated from, in the layouts of the wire. */
export interface ReferenceProjection {
  readonly rows: number;
  readonly columns: number;
  /** Of the quality inputs. */
  readonly samples: number;
  /** [rows, columns]: the checkpoint's own values. */
  readonly weights: Float32Array;
  /** [columns]: sum of squares of the inputs over all tokens / calibration samples. */
  readonly meanSquares: Float32Array;
  /** [samples, columns]: inputs for which the dense and the pruned output are compared. */
  readonly qualityInputs: Float32Array;
}

/** Output of a row for each sample, from all columns or only from the `kept` ones. */
export function multiplyRow(projection: ReferenceProjection, row: number, kept?: Uint32Array): Float64Array {
  const { columns, samples, qualityInputs } = projection;
  const weights = projection.weights.subarray(row * columns, (row + 1) * columns);
  const outputs = new Float64Array(samples);
  for (let sample = 0; sample < samples; sample++) {
    const first = sample * columns;
    let output = 0;
    if (kept === undefined) for (let column = 0; column < columns; column++) output += weights[column]! * qualityInputs[first + column]!;
    else for (const column of kept) output += weights[column]! * qualityInputs[first + column]!;
    outputs[sample] = output;
  }
  return outputs;
}

import type { InputSite, SiteStatistics } from '@secateur/proto/statistics';
import { SecateurError } from '../errors.js';

/** Statistics of one input over all calibration samples, as little-endian float32 bytes. */
export interface ReducedSite {
  readonly site: InputSite;
  readonly columns: number;
  readonly samples: number;
  /** [columns]: sum of squares over all tokens / samples. */
  readonly meanSquares: Uint8Array;
  /** [samples, columns], or [samples, sketches, columns]: what rows are judged on, in sample order. */
  readonly qualityInputs: Uint8Array;
}

/**
 * Adds the statistics of all groups in the order of their indices, whatever order they came in, so that the sums do not depend on the
 * cluster. Sums are float64 and rounded to float32 once. `sketches`: quality inputs of each sample that stand for all of its tokens; 0 when
 * there is one, of its last token.
 */
export function reduceStatistics(byGroup: ReadonlyMap<number, readonly SiteStatistics[]>, sketches = 0): ReducedSite[] {
  const inputsPerSample = Math.max(1, sketches);
  const groups = [...byGroup].sort(([left], [right]) => left - right).map(([, sites]) => sites);
  const [first] = groups;
  if (first === undefined) throw new SecateurError('INVALID_DATA', 'There are no statistics to reduce.');
  return first.map(({ site, sumsOfSquares }) => {
    const columns = sumsOfSquares.byteLength / 8;
    if (columns < 1 || !Number.isInteger(columns)) {
      throw new SecateurError(
        'CORRUPT_DATA',
        `Sums of squares of input ${site} came in ${sumsOfSquares.byteLength} bytes, which are no float64 values.`,
      );
    }
    const sums = new Float64Array(columns);
    const parts: Uint8Array[] = [];
    let inputBytes = 0;
    for (const sites of groups) {
      const statistics = sites.find((candidate) => candidate.site === site);
      if (
        statistics?.sumsOfSquares.byteLength !== 8 * columns ||
        statistics.qualityInputs.byteLength % (4 * columns * inputsPerSample) !== 0
      ) {
        throw new SecateurError('CORRUPT_DATA', `A group answered input ${site} with statistics of another shape.`);
      }
      const partial = new DataView(statistics.sumsOfSquares.buffer, statistics.sumsOfSquares.byteOffset, 8 * columns);
      for (let column = 0; column < columns; column++) sums[column]! += partial.getFloat64(8 * column, true);
      parts.push(statistics.qualityInputs);
      inputBytes += statistics.qualityInputs.byteLength;
    }
    const samples = inputBytes / (4 * columns * inputsPerSample);
    const qualityInputs = new Uint8Array(inputBytes);
    let offset = 0;
    for (const part of parts) {
      qualityInputs.set(part, offset);
      offset += part.byteLength;
    }
    const meanSquares = Float32Array.from(sums, (sum) => sum / samples);
    return { site, columns, samples, meanSquares: new Uint8Array(meanSquares.buffer), qualityInputs };
  });
}

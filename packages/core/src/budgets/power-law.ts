/** Bins of the histogram of the logarithms. */
const BINS = 100;

/**
 * Exponent of a power law fitted to the tail of a spectrum, as the published code of AlphaPruning fits it (docs/algorithms.md). Eigenvalues
 * ascend. Undefined when fewer than two of them are above 0, those that are 0 but for rounding left aside.
 */
export function fitPowerLaw(eigenvalues: ArrayLike<number>, metric: 'peak' | 'mid'): number | undefined {
  const values = positiveOf(eigenvalues);
  if (values.length < 2) return undefined;
  const tails = new Tails(values);
  return metric === 'mid' ? tails.exponent(Math.floor(values.length / 2)) : fitNearPeak(values, tails);
}

/** Of all tails that begin near the peak the exponent of the one whose law is closest to it; the first of equals. */
function fitNearPeak(values: Float64Array, tails: Tails): number {
  const peak = peakOf(values);
  // One bound is a logarithm: so it is in the published code.
  const lower = Math.log10(0.95 * peak);
  const upper = 1.5 * peak;
  let best = tails.exponent(0);
  let bestDistance = 1;
  for (let first = 0; first < values.length - 1; first++) {
    const value = values[first]!;
    if (value < lower) continue;
    if (value > upper) break;
    const exponent = tails.exponent(first);
    if (!(exponent > 1 && Number.isFinite(exponent))) continue;
    const distance = tails.distance(first, exponent, bestDistance);
    if (distance < bestDistance) {
      best = exponent;
      bestDistance = distance;
    }
  }
  return best;
}

/** Where the fullest of equal bins of the logarithms begins, as an eigenvalue; the first of equals. */
function peakOf(values: Float64Array): number {
  const logarithms = values.map((value) => Math.log10(value));
  const low = logarithms[0]!;
  const width = (logarithms.at(-1)! - low) / BINS;
  const counts = new Uint32Array(BINS);
  for (const logarithm of logarithms) {
    const bin = width === 0 ? 0 : Math.min(BINS - 1, Math.floor((logarithm - low) / width));
    counts[bin]! += 1;
  }
  const fullest = counts.indexOf(Math.max(...counts));
  return 10 ** (low + fullest * width);
}

/** Those that float64 tells from 0. */
function positiveOf(eigenvalues: ArrayLike<number>): Float64Array {
  const values = Float64Array.from(eigenvalues);
  const least = values.length * Number.EPSILON * (values.at(-1) ?? 0);
  const first = values.findIndex((value) => value > least);
  return first === -1 ? new Float64Array(0) : values.subarray(first);
}

/** The tails of ascending values: all from one on. */
class Tails {
  private readonly logarithms: Float64Array;
  /** sums[first]: of the logarithms from there on. */
  private readonly sums: Float64Array;

  constructor(values: Float64Array) {
    this.logarithms = values.map((value) => Math.log(value));
    this.sums = new Float64Array(values.length);
    let sum = 0;
    for (let index = values.length - 1; index >= 0; index--) {
      sum += this.logarithms[index]!;
      this.sums[index] = sum;
    }
  }

  /** Most likely exponent of a power law that begins at the first value of the tail. */
  exponent(first: number): number {
    const count = this.logarithms.length - first;
    return 1 + count / (this.sums[first]! - count * this.logarithms[first]!);
  }

  /** Largest distance between the distribution of the tail and the law; at least `enough` once it is that far. */
  distance(first: number, exponent: number, enough: number): number {
    const count = this.logarithms.length - first;
    const start = this.logarithms[first]!;
    let largest = 0;
    for (let index = 0; index < count; index++) {
      const law = 1 - Math.exp((1 - exponent) * (this.logarithms[first + index]! - start));
      const distance = Math.abs(law - index / count);
      if (distance > largest) {
        if (distance >= enough) return distance;
        largest = distance;
      }
    }
    return largest;
  }
}

/** How the row qualities steer the search. */
export type RowMetric = 'cosim' | 'mse' | 'psnr';

/** How the search tells which sparsities are best. */
export type LayerMetric =
  'cosim_flat' | 'cosim_dim' | 'cosim_sample' | 'mse' | 'mse_dim' | 'mae' | 'snr' | 'psnr_flat' | 'psnr_dim' | 'psnr_sample' | 'pass';

/** Sums over some values y of the dense output and ŷ of the pruned one that most metrics are made of. */
export interface OutputSums {
  readonly values: number;
  /** Σ y·ŷ */
  readonly innerProduct: number;
  /** Σ y² */
  readonly denseSquares: number;
  /** Σ ŷ² */
  readonly prunedSquares: number;
  /** Σ (y − ŷ)² */
  readonly squaredErrors: number;
  /** max y² */
  readonly peakSquare: number;
}

/** A pruned output next to the dense one. */
export interface OutputComparison {
  readonly rows: readonly OutputSums[];
  /** Made when a metric asks for it. */
  readonly samples: () => readonly OutputSums[];
  /** Σ |y − ŷ|. Made when a metric asks for it. */
  readonly absoluteErrors: () => number;
}

/** Keeps quotients of dead rows finite. */
const NORM_EPSILON = 1e-8;
/** Keeps logarithms of exact outputs finite, and those of silent ones: silence without an error has 0 dB. */
const ERROR_EPSILON = 1e-10;

export function cosine({ innerProduct, denseSquares, prunedSquares }: OutputSums): number {
  const norms = (Math.sqrt(denseSquares) + NORM_EPSILON) * (Math.sqrt(prunedSquares) + NORM_EPSILON);
  return Math.min(Math.max(innerProduct / norms, -1), 1);
}

function meanSquaredError({ squaredErrors, values }: OutputSums): number {
  return squaredErrors / values;
}

function decibels(signal: number, error: number): number {
  return 10 * Math.log10((signal > 0 ? signal : ERROR_EPSILON) / (error + ERROR_EPSILON));
}

function peakSignalToNoise(sums: OutputSums): number {
  return decibels(sums.peakSquare, meanSquaredError(sums));
}

function signalToNoise(sums: OutputSums): number {
  const error = meanSquaredError(sums);
  return error < ERROR_EPSILON ? Infinity : decibels(sums.denseSquares / sums.values, error);
}

/** Bigger is better. */
export function rowQuality(metric: RowMetric, sums: OutputSums): number {
  switch (metric) {
    case 'cosim':
      return cosine(sums);
    case 'mse':
      return -meanSquaredError(sums);
    case 'psnr':
      return peakSignalToNoise(sums);
  }
}

/** Bigger is better. */
export function layerQuality(metric: LayerMetric, { rows, samples, absoluteErrors }: OutputComparison): number {
  switch (metric) {
    case 'cosim_flat':
      return cosine(addSums(rows));
    case 'cosim_dim':
      return meanOver(rows, cosine);
    case 'cosim_sample':
      return meanOver(samples(), cosine);
    case 'mse':
      return -meanSquaredError(addSums(rows));
    case 'mse_dim':
      return -meanOver(rows, meanSquaredError);
    case 'mae':
      return -absoluteErrors() / addSums(rows).values;
    case 'snr':
      return signalToNoise(addSums(rows));
    case 'psnr_flat':
      return peakSignalToNoise(addSums(rows));
    case 'psnr_dim':
      return meanOver(rows, peakSignalToNoise);
    case 'psnr_sample':
      return meanOver(samples(), peakSignalToNoise);
    case 'pass':
      return 1;
  }
}

/** Unbiased; 0 of a single value. */
export function variance(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const mean = sum(values) / values.length;
  return sum(values.map((value) => (value - mean) ** 2)) / (values.length - 1);
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function meanOver(parts: readonly OutputSums[], quality: (sums: OutputSums) => number): number {
  return sum(parts.map(quality)) / parts.length;
}

function addSums(parts: readonly OutputSums[]): OutputSums {
  return parts.reduce((total, part) => ({
    values: total.values + part.values,
    innerProduct: total.innerProduct + part.innerProduct,
    denseSquares: total.denseSquares + part.denseSquares,
    prunedSquares: total.prunedSquares + part.prunedSquares,
    squaredErrors: total.squaredErrors + part.squaredErrors,
    peakSquare: Math.max(total.peakSquare, part.peakSquare),
  }));
}

import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { fitPowerLaw } from './power-law.js';

/**
 * Positive eigenvalues of which some are equal. Others are told apart by more than rounding: their logarithms lie on a grid, because the
 * exponent of a tail whose values differ in their last bits is a quotient of roundings.
 */
const spectra = fc
  .array(
    fc.oneof(
      fc.integer({ min: -6e6, max: 3e6 }).map((step) => step / 1e6),
      fc.constantFrom(-1.5, 0, 0.25),
    ),
    { minLength: 2, maxLength: 60 },
  )
  .map((logarithms) => logarithms.sort((left, right) => left - right).map((logarithm) => 10 ** logarithm));

/** Read off the formulas, without sums that are kept and without an end before the end. */
function fitByFormula(values: readonly number[]): number {
  const n = values.length;
  const exponentOf = (first: number): number => {
    const tail = values.slice(first).map(Math.log);
    return 1 + tail.length / (tail.reduce((sum, value) => sum + value, 0) - tail.length * tail[0]!);
  };
  const logarithms = values.map(Math.log10);
  const low = Math.min(...logarithms);
  const width = (Math.max(...logarithms) - low) / 100;
  const counts = new Array<number>(100).fill(0);
  for (const value of logarithms) counts[width === 0 ? 0 : Math.min(99, Math.floor((value - low) / width))]! += 1;
  const peak = 10 ** (low + counts.indexOf(Math.max(...counts)) * width);
  const candidates = values
    .slice(0, n - 1)
    .map((value, first) => ({ value, first, exponent: exponentOf(first) }))
    .filter(({ value, exponent }) => value >= Math.log10(0.95 * peak) && value <= 1.5 * peak && exponent > 1 && Number.isFinite(exponent))
    .map((candidate) => {
      const tail = values.slice(candidate.first);
      const distances = tail.map((value, index) =>
        Math.abs(1 - (value / candidate.value) ** (1 - candidate.exponent) - index / tail.length),
      );
      return { ...candidate, distance: Math.max(...distances) };
    });
  const least = Math.min(...candidates.map(({ distance }) => distance));
  return candidates.find(({ distance }) => distance === least)?.exponent ?? exponentOf(0);
}

describe('the exponent of a spectrum', () => {
  test('is that of the published formula', () => {
    fc.assert(
      fc.property(spectra, (values) => {
        fc.pre(values[0]! < values.at(-1)!);
        const fitted = fitPowerLaw(values, 'peak')!;
        const expected = fitByFormula(values);
        // Tails that fit equally well may be told apart by rounding; they are then the same law but for it, or equal eigenvalues.
        expect(Math.abs(fitted - expected)).toBeLessThanOrEqual(1e-6 * Math.abs(expected));
      }),
      { numRuns: 500 },
    );
  });

  test('does not depend on the scale of eigenvalues when they are large', () => {
    // Where the peak is above 1.05, its logarithm is a bound; below, all smaller eigenvalues are candidates.
    const values = Array.from({ length: 200 }, (_, index) => 100 * (1 - (index + 0.5) / 200) ** -0.5).sort((left, right) => left - right);
    const scaled = values.map((value) => 4 * value);
    expect(fitPowerLaw(scaled, 'mid')).toBeCloseTo(fitPowerLaw(values, 'mid')!, 10);
  });

  test('is found again in a power law', () => {
    for (const exponent of [1.5, 2.5, 4]) {
      // Quantiles of a law with density x^-exponent from 1 on.
      const values = Array.from({ length: 2000 }, (_, index) => (1 - (index + 0.5) / 2000) ** (-1 / (exponent - 1)));
      for (const metric of ['peak', 'mid'] as const) expect(Math.abs(fitPowerLaw(values, metric)! / exponent - 1)).toBeLessThan(0.02);
    }
  });

  test('at the median takes half of the eigenvalues', () => {
    const values = [1, 2, 3, 4, 8];
    const tail = [3, 4, 8].map(Math.log);
    expect(fitPowerLaw(values, 'mid')).toBeCloseTo(1 + 3 / (tail[0]! + tail[1]! + tail[2]! - 3 * tail[0]!), 12);
  });

  test('leaves eigenvalues aside that are 0 but for rounding', () => {
    const values = [0.5, 0.7, 1.1, 1.3, 2, 5, 9];
    for (const metric of ['peak', 'mid'] as const) {
      expect(fitPowerLaw([0, 0, 1e-17, 1e-16, ...values], metric)).toBe(fitPowerLaw(values, metric));
    }
    expect(fitPowerLaw([0, 0, 3], 'peak')).toBeUndefined();
    expect(fitPowerLaw([0, 0], 'mid')).toBeUndefined();
    expect(fitPowerLaw([], 'peak')).toBeUndefined();
  });
});

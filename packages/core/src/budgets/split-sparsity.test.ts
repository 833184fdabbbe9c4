import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { SecateurError } from '../errors.js';
import { sensitivityBounds, splitByExponents, splitByOutliers, splitBySensitivities } from './split-sparsity.js';

const shares = fc.array(fc.double({ min: 0, max: 5, noNaN: true }), { minLength: 1, maxLength: 40 });
const nameAll = (values: readonly number[]) => values.map((outlierShare, index) => ({ name: `model.layers.${index}`, outlierShare }));

function errorOf(work: () => unknown): SecateurError {
  try {
    work();
  } catch (error) {
    if (error instanceof SecateurError) return error;
    throw error;
  }
  throw new Error('There was no error.');
}

describe('targets by outliers', () => {
  test('have the sparsity as their mean, are 2 λ apart at most, and fall with the outliers', () => {
    fc.assert(
      fc.property(
        shares,
        fc.double({ min: 0.3, max: 0.7, noNaN: true }),
        fc.double({ min: 0.01, max: 0.14, noNaN: true }),
        (given, sparsity, lambda) => {
          const targets = splitByOutliers(nameAll(given), { sparsity, lambda });
          const mean = targets.reduce((sum, target) => sum + target, 0) / targets.length;
          expect(mean).toBeCloseTo(sparsity, 12);
          const spread = Math.max(...given) - Math.min(...given);
          expect(Math.max(...targets) - Math.min(...targets)).toBeCloseTo(spread === 0 ? 0 : 2 * lambda, 12);
          for (const [index, share] of given.entries()) {
            for (const [other, otherShare] of given.entries()) {
              if (share > otherShare) expect(targets[index]!).toBeLessThanOrEqual(targets[other]!);
              if (share === otherShare) expect(targets[index]!).toBe(targets[other]!);
            }
          }
        },
      ),
    );
  });

  test('are those of the published formula', () => {
    // keep = (o - 1) / 4 · 0.2 = 0, 0.05, 0.2; less their mean and with 0.3: what is kept.
    const targets = splitByOutliers(nameAll([1, 2, 5]), { sparsity: 0.7, lambda: 0.1 });
    const mean = 0.25 / 3;
    for (const [index, keep] of [0, 0.05, 0.2].entries()) expect(targets[index]).toBeCloseTo(1 - (keep - mean + 0.3), 14);
  });

  test('that are no shares are refused with the largest λ that is possible', () => {
    const blocks = nameAll([1, 2, 5]);
    const { message, violations } = errorOf(() => splitByOutliers(blocks, { sparsity: 0.95, lambda: 0.2 }));
    expect(message).toMatch(/model\.layers\.0 drop 111\.7 % of its weights; for this model it must be below 0\.06/);
    expect(violations[0]?.field).toBe('prune.layer_budget_options.owl.lambda');
    const bound = Number(/below (0\.\d+)/.exec(message)?.[1]);
    expect(Math.max(...splitByOutliers(blocks, { sparsity: 0.95, lambda: bound - 1e-9 }))).toBeLessThan(1);
    expect(() => splitByOutliers(blocks, { sparsity: 0.95, lambda: bound + 2e-4 })).toThrow(SecateurError);
    // Far below 0 for the block with the most outliers.
    expect(errorOf(() => splitByOutliers(nameAll([1, 1, 1, 5]), { sparsity: 0.1, lambda: 0.3 })).message).toContain('model.layers.3');
  });
});

const projections = fc.array(
  fc.record({ exponent: fc.double({ min: 1.1, max: 8, noNaN: true }), weights: fc.integer({ min: 1, max: 1_000_000 }) }),
  { minLength: 1, maxLength: 40 },
);

describe('targets by exponents', () => {
  test('drop the sparsity of all weights, are mapped linearly, and rise with the exponent', () => {
    fc.assert(
      fc.property(
        projections,
        fc.double({ min: 0.3, max: 0.7, noNaN: true }),
        fc.double({ min: 0.01, max: 0.15, noNaN: true }),
        (given, sparsity, epsilon) => {
          const named = given.map((projection, index) => ({ ...projection, name: `p${index}` }));
          const targets = splitByExponents(named, { sparsity, epsilon });
          const weights = named.reduce((sum, projection) => sum + projection.weights, 0);
          const dropped = named.reduce((sum, projection, index) => sum + projection.weights * targets[index]!, 0);
          expect(dropped / weights).toBeCloseTo(sparsity, 12);
          const exponents = given.map(({ exponent }) => exponent);
          const least = Math.min(...exponents);
          const spread = Math.max(...exponents) - least;
          // All are the same multiple of 1 - ε … 1 + ε.
          for (const [index, exponent] of exponents.entries()) {
            const ratio = spread === 0 ? 1 : 1 - epsilon + ((exponent - least) / spread) * 2 * epsilon;
            const first = spread === 0 ? 1 : 1 - epsilon + ((exponents[0]! - least) / spread) * 2 * epsilon;
            expect(targets[index]! / targets[0]!).toBeCloseTo(ratio / first, 10);
          }
        },
      ),
    );
  });

  test('that are no shares are refused with the largest ε that is possible', () => {
    const named = [
      { name: 'a', weights: 3, exponent: 2 },
      { name: 'b', weights: 1, exponent: 4 },
    ];
    const { message, violations } = errorOf(() => splitByExponents(named, { sparsity: 0.8, epsilon: 0.3 }));
    expect(message).toMatch(/b drop 122\.4 % of its weights; for this model it must be below 0\.15/);
    expect(violations[0]?.field).toBe('prune.layer_budget_options.alpha.epsilon');
    const bound = Number(/below (0\.\d+)/.exec(message)?.[1]);
    expect(Math.max(...splitByExponents(named, { sparsity: 0.8, epsilon: bound - 1e-9 }))).toBeLessThan(1);
    expect(() => splitByExponents(named, { sparsity: 0.8, epsilon: bound + 2e-4 })).toThrow(SecateurError);
  });
});

describe('targets by sensitivities', () => {
  const measured = fc.array(
    fc.record({
      error: fc.oneof(fc.constant(0), fc.double({ min: 1e-9, max: 2, noNaN: true })),
      weights: fc.integer({ min: 1, max: 1_000_000 }),
    }),
    { minLength: 1, maxLength: 40 },
  );
  const settings = fc.record({
    sparsity: fc.double({ min: 0.01, max: 0.99, noNaN: true }),
    spread: fc.double({ min: 0.01, max: 0.9, noNaN: true }),
  });

  test('drop the sparsity of all weights, stay within their bounds, and cost the same with the next weight where they do not touch them', () => {
    fc.assert(
      fc.property(measured, settings, (given, { sparsity, spread }) => {
        const targets = splitBySensitivities(given, { sparsity, spread });
        const { low, high } = sensitivityBounds(sparsity, spread);
        const weights = given.reduce((sum, projection) => sum + projection.weights, 0);
        const dropped = given.reduce((sum, projection, index) => sum + projection.weights * targets[index]!, 0);
        expect(dropped / weights).toBeCloseTo(sparsity, 10);
        const slopes: number[] = [];
        for (const [index, target] of targets.entries()) {
          expect(target).toBeGreaterThanOrEqual(low);
          expect(target).toBeLessThanOrEqual(high);
          const { error, weights: own } = given[index]!;
          if (target > low + 1e-9 && target < high - 1e-9 && error > 0) slopes.push(Math.log(error / own) + 10 * (target - sparsity));
        }
        for (const slope of slopes) expect(slope).toBeCloseTo(slopes[0]!, 6);
      }),
    );
  });

  test('are the sparsity where all cost the same, or nothing', () => {
    for (const error of [0, 0.3]) {
      const targets = splitBySensitivities(
        [
          { error, weights: 5 },
          { error, weights: 5 },
        ],
        { sparsity: 0.8, spread: 0.15 },
      );
      for (const target of targets) expect(target).toBeCloseTo(0.8, 12);
    }
  });

  test('give a projection that costs e times as much per weight 0.1 less', () => {
    const [cheap, dear] = splitBySensitivities(
      [
        { error: 1, weights: 5 },
        { error: Math.E, weights: 5 },
      ],
      { sparsity: 0.7, spread: 0.15 },
    );
    expect(cheap).toBeCloseTo(0.75, 12);
    expect(dear).toBeCloseTo(0.65, 12);
  });
});

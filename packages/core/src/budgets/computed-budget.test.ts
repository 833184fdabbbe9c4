import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { AlphaMetric, BudgetGranularity, LayerBudget, LayerBudgetOptions, type AlphaOptions } from '@secateur/proto/job';
import { ModelFamily } from '@secateur/proto/model';
import { computedBudgetOf, possibleTargets, type ComputedBudget } from './computed-budget.js';
import { splitByExponents, splitByOutliers, splitBySensitivities } from './split-sparsity.js';

const alpha = (options: Partial<AlphaOptions>, family: ModelFamily = ModelFamily.LLAMA): ComputedBudget | undefined =>
  computedBudgetOf(
    {
      layerBudget: LayerBudget.ALPHA,
      layerBudgetOptions: LayerBudgetOptions.fromPartial({
        alpha: { metric: AlphaMetric.PEAK, epsilon: 0, granularity: BudgetGranularity.BLOCK, ...options },
      }),
    },
    { family },
  );

describe('what computes the targets', () => {
  test('is nothing where they are known', () => {
    for (const layerBudget of [LayerBudget.UNIFORM, LayerBudget.GIVEN]) {
      const layerBudgetOptions = LayerBudgetOptions.fromPartial({ file: 'ratios.npy' });
      expect(computedBudgetOf({ layerBudget, layerBudgetOptions }, { family: ModelFamily.LLAMA })).toBeUndefined();
    }
  });

  test('has the epsilon of the family unless one is given', () => {
    expect(alpha({})).toEqual({ rule: 'alpha', metric: 'peak', epsilon: 0.3, per: 'block' });
    for (const family of [ModelFamily.QWEN2, ModelFamily.QWEN3]) expect(alpha({}, family)).toMatchObject({ epsilon: 0.1 });
    expect(alpha({ epsilon: 0.2, metric: AlphaMetric.MID, granularity: BudgetGranularity.PROJECTION }, ModelFamily.QWEN2)).toEqual({
      rule: 'alpha',
      metric: 'mid',
      epsilon: 0.2,
      per: 'projection',
    });
  });

  test('may give no targets beyond those that are planned for', () => {
    const values = fc.array(fc.double({ min: 0.1, max: 9, noNaN: true }), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(values, fc.double({ min: 0.3, max: 0.6, noNaN: true }), (given, sparsity) => {
        const owl = possibleTargets(sparsity, { rule: 'owl', lambda: 0.1, threshold: 5 });
        const byOutliers = splitByOutliers(
          given.map((outlierShare) => ({ name: '', outlierShare })),
          { sparsity, lambda: 0.1 },
        );
        const spectra = possibleTargets(sparsity, { rule: 'alpha', metric: 'peak', epsilon: 0.2, per: 'block' });
        const byExponents = splitByExponents(
          given.map((exponent) => ({ name: '', weights: 1, exponent })),
          { sparsity, epsilon: 0.2 },
        );
        const sensitivities = possibleTargets(sparsity, { rule: 'optimal', spread: 0.2, samples: 8 });
        const bySensitivities = splitBySensitivities(
          given.map((error) => ({ weights: 1, error })),
          { sparsity, spread: 0.2 },
        );
        for (const [possible, actual] of [
          [owl, byOutliers],
          [spectra, byExponents],
          [sensitivities, bySensitivities],
        ] as const) {
          expect(Math.min(...actual)).toBeGreaterThanOrEqual(Math.min(...possible) - 1e-12);
          expect(Math.max(...actual)).toBeLessThanOrEqual(Math.max(...possible) + 1e-12);
        }
      }),
    );
    expect(possibleTargets(0.95, { rule: 'owl', lambda: 0.2, threshold: 7 }).every((target) => target > 0 && target < 1)).toBe(true);
  });
});

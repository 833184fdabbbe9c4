import { AlphaMetric, BudgetGranularity, type LayerBudgetOptions, type PruneSpec } from '@secateur/proto/job';
import { ModelFamily, type Architecture } from '@secateur/proto/model';
import { sensitivityBounds } from './split-sparsity.js';

/** How targets are computed from the model when a job runs. */
export type ComputedBudget = OwlBudget | AlphaBudget | OptimalBudget;

export interface OwlBudget {
  readonly rule: 'owl';
  /** Half of the difference between the largest and the smallest target. */
  readonly lambda: number;
  /** Scores above so many times their mean are outliers. */
  readonly threshold: number;
}

export interface AlphaBudget {
  readonly rule: 'alpha';
  /** Where the tail of a spectrum begins. */
  readonly metric: 'peak' | 'mid';
  /** Targets are 1 - epsilon … 1 + epsilon of each other. */
  readonly epsilon: number;
  /** What has a target of its own. */
  readonly per: 'block' | 'projection';
}

export interface OptimalBudget {
  readonly rule: 'optimal';
  /** The most that a target differs from the sparsity. */
  readonly spread: number;
  /** The first calibration samples, on which projections are tried. */
  readonly samples: number;
}

/** Those of the published code. */
const DEFAULT_EPSILON = 0.3;
const DEFAULT_EPSILON_OF_QWEN = 0.1;
const QWEN: ReadonlySet<ModelFamily> = new Set<ModelFamily>([ModelFamily.QWEN2, ModelFamily.QWEN3]);

/** Steps in which the targets that may come out are listed. */
const LISTED_STEPS = 32;

type BudgetSpec = Pick<PruneSpec, 'layerBudget' | 'layerBudgetOptions'>;

/** The settings of a resolved spec with those defaults that depend on the model. */
export function completeBudgetOptions(
  { layerBudgetOptions }: BudgetSpec,
  { family }: Pick<Architecture, 'family'>,
): LayerBudgetOptions | undefined {
  const alpha = layerBudgetOptions?.alpha;
  if (layerBudgetOptions === undefined || alpha === undefined) return layerBudgetOptions;
  const epsilon = alpha.epsilon || (QWEN.has(family) ? DEFAULT_EPSILON_OF_QWEN : DEFAULT_EPSILON);
  return { ...layerBudgetOptions, alpha: { ...alpha, epsilon } };
}

/** What a resolved spec says about a model; undefined where its targets are known without looking at the model. */
export function computedBudgetOf(spec: BudgetSpec, architecture: Pick<Architecture, 'family'>): ComputedBudget | undefined {
  const { owl, alpha, optimal } = completeBudgetOptions(spec, architecture) ?? {};
  if (optimal !== undefined) return { rule: 'optimal', spread: optimal.spread, samples: optimal.samples };
  if (owl !== undefined) return { rule: 'owl', lambda: owl.lambda, threshold: owl.threshold };
  if (alpha === undefined) return undefined;
  return {
    rule: 'alpha',
    metric: alpha.metric === AlphaMetric.MID ? 'mid' : 'peak',
    epsilon: alpha.epsilon,
    per: alpha.granularity === BudgetGranularity.PROJECTION ? 'projection' : 'block',
  };
}

/** Targets that may come out, close enough together to plan for all of them. */
export function possibleTargets(sparsity: number, budget: ComputedBudget): number[] {
  const { low, high } = boundsOf(sparsity, budget);
  const targets = Array.from({ length: LISTED_STEPS + 1 }, (_, step) => low + ((high - low) * step) / LISTED_STEPS);
  return targets.filter((target) => target > 0 && target < 1);
}

function boundsOf(sparsity: number, budget: ComputedBudget): { readonly low: number; readonly high: number } {
  switch (budget.rule) {
    case 'owl':
      return { low: sparsity - 2 * budget.lambda, high: sparsity + 2 * budget.lambda };
    case 'alpha': {
      const { epsilon } = budget;
      return { low: (sparsity * (1 - epsilon)) / (1 + epsilon), high: (sparsity * (1 + epsilon)) / (1 - epsilon) };
    }
    case 'optimal':
      return sensitivityBounds(sparsity, budget.spread);
  }
}

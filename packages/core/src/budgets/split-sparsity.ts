import { SecateurError } from '../errors.js';

/** A block with the share of its scores that are outliers, in per cent. */
export interface BlockOutliers {
  readonly name: string;
  readonly outlierShare: number;
}

/**
 * Targets of blocks by OWL: those with more outliers keep more, the largest target is 2 λ above the smallest, and the mean is the sparsity.
 * Blocks with equal shares drop the same. INVALID_REQUEST when a target is no share.
 */
export function splitByOutliers(blocks: readonly BlockOutliers[], { sparsity, lambda }: { sparsity: number; lambda: number }): number[] {
  const shares = blocks.map(({ outlierShare }) => outlierShare);
  const least = Math.min(...shares);
  const spread = Math.max(...shares) - least;
  const kept = shares.map((share) => (spread === 0 ? 0 : ((share - least) / spread) * 2 * lambda));
  const mean = kept.reduce((sum, value) => sum + value, 0) / kept.length;
  const targets = kept.map((value) => 1 - (value - mean + (1 - sparsity)));
  requireShares(blocks, targets, () => {
    // Targets move away from the sparsity in proportion to λ.
    const bounds = targets.map((target) => (target > sparsity ? (1 - sparsity) / (target - sparsity) : sparsity / (sparsity - target)));
    return { field: 'prune.layer_budget_options.owl.lambda', bound: lambda * Math.min(...bounds) };
  });
  return targets;
}

/** A projection with the exponent of its spectrum, or that of its block. */
export interface SpectrumExponent {
  readonly name: string;
  readonly weights: number;
  readonly exponent: number;
}

/**
 * Targets of projections by AlphaPruning: exponents are mapped linearly to 1 - ε … 1 + ε, and scaled so that the share of all weights that is
 * dropped is the sparsity. Equal exponents drop the same. INVALID_REQUEST when a target is no share.
 */
export function splitByExponents(
  projections: readonly SpectrumExponent[],
  { sparsity, epsilon }: { sparsity: number; epsilon: number },
): number[] {
  const exponents = projections.map(({ exponent }) => exponent);
  const least = Math.min(...exponents);
  const spread = Math.max(...exponents) - least;
  // From -1 to 1.
  const places = exponents.map((exponent) => (spread === 0 ? 0 : ((exponent - least) / spread) * 2 - 1));
  const weights = projections.reduce((sum, projection) => sum + projection.weights, 0);
  const meanPlace = projections.reduce((sum, projection, index) => sum + projection.weights * places[index]!, 0) / weights;
  const scale = sparsity / (1 + epsilon * meanPlace);
  const targets = places.map((place) => scale * (1 + epsilon * place));
  requireShares(projections, targets, () => ({
    field: 'prune.layer_budget_options.alpha.epsilon',
    bound: (1 - sparsity) / (sparsity - meanPlace),
  }));
  return targets;
}

/** Throws INVALID_REQUEST naming the first that is not above 0 and below 1, and below what the option has to be. */
function requireShares(
  owners: readonly { readonly name: string }[],
  targets: readonly number[],
  explain: () => { readonly field: string; readonly bound: number },
): void {
  const wrong = targets.findIndex((target) => !(target > 0 && target < 1));
  if (wrong === -1) return;
  const { field, bound } = explain();
  const description = `would have ${owners[wrong]!.name} drop ${(100 * targets[wrong]!).toFixed(1)} % of its weights; for this model it must be below ${Math.floor(bound * 1e4) / 1e4}`;
  throw new SecateurError('INVALID_REQUEST', `The job cannot be run: ${field} ${description}.`, { violations: [{ field, description }] });
}

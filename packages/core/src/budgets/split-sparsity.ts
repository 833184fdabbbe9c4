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

/** A projection with what its block's output loses when it alone is pruned with the sparsity, relative to that output. */
export interface ProjectionSensitivity {
  readonly weights: number;
  readonly error: number;
}

/** ln of how much more is lost with each further share of a projection's weights (docs/quality.md). */
const ERROR_GROWTH = 10;
/** However little a projection matters, it keeps this part of what it would keep with the sparsity. */
const KEPT_AT_LEAST = 0.3;
/** Of a projection that costs nothing. */
const LEAST_ERROR = 1e-30;

/** What targets by sensitivities are between. */
export function sensitivityBounds(sparsity: number, spread: number): { readonly low: number; readonly high: number } {
  return { low: Math.max(0, sparsity - spread), high: Math.min(sparsity + spread, 1 - KEPT_AT_LEAST * (1 - sparsity)) };
}

/**
 * Targets of projections that lose the least together: the error of each is taken to grow by e^(10 Δs), so that where the next weight costs the
 * same in all of them, `s = t − (ln(error / weights) − μ) / 10`, but for those at a bound. μ makes the share of all weights that is dropped
 * the sparsity.
 */
export function splitBySensitivities(
  projections: readonly ProjectionSensitivity[],
  { sparsity, spread }: { sparsity: number; spread: number },
): number[] {
  const { low, high } = sensitivityBounds(sparsity, spread);
  const costs = projections.map(({ error, weights }) => Math.log(Math.max(error, LEAST_ERROR) / weights));
  const weights = projections.reduce((sum, projection) => sum + projection.weights, 0);
  const targetsAt = (multiplier: number): number[] =>
    costs.map((cost) => Math.min(high, Math.max(low, sparsity - (cost - multiplier) / ERROR_GROWTH)));
  const droppedAt = (multiplier: number): number =>
    targetsAt(multiplier).reduce((sum, target, index) => sum + target * projections[index]!.weights, 0);
  // Beyond these all projections are at the same bound.
  let below = Math.min(...costs) - ERROR_GROWTH;
  let above = Math.max(...costs) + ERROR_GROWTH;
  for (let middle = (below + above) / 2; middle > below && middle < above; middle = (below + above) / 2) {
    if (droppedAt(middle) > sparsity * weights) above = middle;
    else below = middle;
  }
  return targetsAt(below);
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

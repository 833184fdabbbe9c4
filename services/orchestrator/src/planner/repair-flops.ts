import type { PlannedProjection } from '@secateur/core';
import { Repair, Score } from '@secateur/proto/allocation';
import { driftRowsOf } from './drift-rows.js';
import type { JobWork } from './workload.js';

/** Products of ADMM with the inverse (native/cuda/src/cpu/repair/admm.cc). */
const ADMM_STEPS = 20;

/** Floating-point operations of what projections of one block are repaired by, and of the repair; none where nothing is repaired or swapped. */
export function repairFlops(
  projections: readonly PlannedProjection[],
  tokens: number,
  work: JobWork,
): { readonly gram: number; readonly repair: number } {
  const { repair, score, swaps, denseTargets } = work;
  const bySparseGpt = score === Score.SPARSEGPT;
  if (repair === Repair.NONE && !bySparseGpt && !swaps) return { gram: 0, repair: 0 };
  // Half of a Gram matrix is summed up, of a drift all.
  const columnsOfSites = new Map(projections.map(({ site, columns }) => [site, columns]));
  const driftRows = denseTargets ? driftRowsOf(projections) : new Map<number, number>();
  const gram = sum([...columnsOfSites], ([site, columns]) => tokens * columns * (columns + 2 * (driftRows.get(site) ?? 0)));
  const ofProjection = ({ rows, columns }: PlannedProjection): number => {
    const product = 2 * rows * columns ** 2;
    // The error before and after, and what it is a share of.
    const errors = 3 * product;
    const fit = repair === Repair.NONE ? 0 : product * (work.fitSteps + 1);
    const admm = repair === Repair.ADMM ? columns ** 3 + product * (ADMM_STEPS + 1) : 0;
    const targets = denseTargets ? columns ** 3 + 3 * product : 0;
    return errors + fit + admm + targets + (bySparseGpt ? columns ** 3 + product / 2 : 0);
  };
  return { gram, repair: sum(projections, ofProjection) };
}

function sum<Item>(items: readonly Item[], of: (item: Item) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}

import type { PlannedProjection } from '@secateur/core';
import type { ProjectionInputSquares } from '@secateur/proto/kernel_service';
import { prunedProjections, type PrunePlan } from '../planner/job-plan.js';
import { collectStatistics, NO_GRAMS } from './collect-statistics.js';
import type { DenseBlock } from './dense-pass.js';
import type { JobRun } from './job-run.js';

/** The projections of a block that are pruned, in network order, and where nodes pull the mean squares of what they take in. */
export interface ScoredInputs {
  readonly projections: readonly PlannedProjection[];
  readonly inputs: readonly ProjectionInputSquares[];
}

/** Collects what the pruned projections of a dense block take in and offers it to nodes as long as it is used; not where none is pruned. */
export async function withInputSquares(
  run: JobRun,
  plan: PrunePlan,
  { block, hiddenStates, prepare, progress }: DenseBlock,
  use: (scored: ScoredInputs) => Promise<void>,
): Promise<void> {
  const projections = prunedProjections(plan, block);
  if (projections.length === 0) return;
  const sites = [...new Set(projections.map(({ site }) => site))];
  const onGroup = (): void => progress.advance();
  const pass = { layer: block.index, shardId: block.shard.id, sites, projections, grams: NO_GRAMS, sketches: 0, prepare, onGroup };
  const prefix = `jobs/${run.jobId}/budget/${block.index}/`;
  for (const { site, meanSquares } of await collectStatistics(hiddenStates, pass, run.signal)) {
    run.resources.publishBytes(`${prefix}${site}`, meanSquares);
  }
  const inputs = projections.map(({ role, columns, site }) => ({ projection: role, columns, meanSquaresResource: `${prefix}${site}` }));
  try {
    await use({ projections, inputs });
  } finally {
    run.resources.withdraw(prefix);
  }
}

import { fitPowerLaw, projectionName, SecateurError, type AlphaBudget, type PlannedBlock, type PlannedProjection } from '@secateur/core';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import type { TensorRole } from '@secateur/proto/model';
import { describeShard, prunedProjections, type PrunePlan } from '../planner/job-plan.js';
import type { Crew } from '../scheduler/crew.js';
import { StepProgress, type JobRun } from './job-run.js';

/** Exponents of the spectra of a block's pruned projections, in network order. */
export interface BlockExponents {
  readonly projections: readonly PlannedProjection[];
  readonly exponents: readonly number[];
}

/**
 * Fits a power law to the spectrum of every projection that is pruned. Needs the weights only, so each node pulls just the blocks that it
 * is dealt, one at a time.
 */
export async function fitSpectra(run: JobRun, plan: PrunePlan, metric: AlphaBudget['metric'], crew: Crew): Promise<BlockExponents[]> {
  const blocks = plan.model.blocks.filter((block) => prunedProjections(plan, block).length > 0);
  const projections = blocks.flatMap((block) => prunedProjections(plan, block));
  const progress = new StepProgress(run, 0, 'budget', projections.length);
  const fitted = new Map<string, number>();

  const fit = (block: PlannedBlock, role: TensorRole, eigenvalues: Float64Array): void => {
    const projection = block.projections.find((candidate) => candidate.role === role);
    if (projection === undefined) throw new SecateurError('CORRUPT_DATA', `${block.shard.id} has no projection with role ${role}.`);
    const name = projectionName(projection);
    const exponent = fitPowerLaw(eigenvalues, metric);
    if (exponent === undefined) {
      throw new SecateurError(
        'INVALID_DATA',
        `${name} has fewer than two singular values that are not 0, so its spectrum has no tail; leave it out of the job.`,
      );
    }
    if (!fitted.has(name)) progress.advance();
    fitted.set(name, exponent);
  };

  await crew.deal(
    blocks,
    async (member, block, linked) => {
      const { id } = block.shard;
      const roles = prunedProjections(plan, block).map(({ role }) => role);
      await member.loadShard(describeShard(plan, block.shard), linked);
      const attributes = { [Attribute.NODE]: member.node.name, [Attribute.LAYER_INDEX]: block.index };
      await withSpan(SpanName.FIND_EIGENVALUES, { attributes }, () =>
        member.findEigenvalues(id, roles, (role, eigenvalues) => fit(block, role, eigenvalues), linked),
      );
      await member.releaseShard(id, linked);
    },
    { signal: run.signal },
  );
  return blocks.map((block) => {
    const own = prunedProjections(plan, block);
    return { projections: own, exponents: own.map((projection) => exponentOf(fitted, projection)) };
  });
}

function exponentOf(fitted: ReadonlyMap<string, number>, projection: PlannedProjection): number {
  const exponent = fitted.get(projectionName(projection));
  if (exponent === undefined)
    throw new SecateurError('CORRUPT_DATA', `No node answered with the spectrum of ${projectionName(projection)}.`);
  return exponent;
}

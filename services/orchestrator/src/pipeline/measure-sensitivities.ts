import { SecateurError, splitIntoGroups, type PlannedBlock, type PlannedProjection, type ReducedSite } from '@secateur/core';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import type { MeasureSensitivityResponse } from '@secateur/proto/kernel_service';
import { prunedProjections, type PrunePlan } from '../planner/job-plan.js';
import { triedSamples } from '../planner/workload.js';
import type { Crew } from '../scheduler/crew.js';
import { collectStatistics, NO_GRAMS } from './collect-statistics.js';
import { passThroughDense, type DenseBlock } from './dense-pass.js';
import type { JobRun } from './job-run.js';

/** What the output of a block loses when one of its projections is pruned. */
export interface Sensitivity {
  readonly projection: PlannedProjection;
  /** Squared error of the output of its block over all tokens, relative to that output. */
  readonly error: number;
}

/**
 * Moves the first calibration samples through the dense model and prunes the projections of every block one at a time. In network order.
 */
export async function measureSensitivities(run: JobRun, plan: PrunePlan, sparsity: number, crew: Crew): Promise<Sensitivity[]> {
  const { ids, sequenceLength } = plan.calibration.tokens;
  const samples = triedSamples(plan);
  const groups = splitIntoGroups(ids.subarray(0, samples * sequenceLength), samples, sequenceLength, 1);
  const measured: Sensitivity[] = [];
  const visit = async (at: DenseBlock): Promise<void> => {
    const projections = prunedProjections(plan, at.block);
    if (projections.length === 0) return;
    const sites = [...new Set(projections.map(({ site }) => site))];
    const { hiddenStates, prepare, progress } = at;
    const onGroup = (): void => progress.advance();
    const pass = { layer: at.block.index, shardId: at.block.shard.id, sites, grams: NO_GRAMS, sketches: 0, prepare, onGroup };
    const statistics = await collectStatistics(hiddenStates, pass, run.signal);
    const errors = await measureBlock(run, at, { projections, statistics, sparsity });
    for (const [place, projection] of projections.entries()) measured.push({ projection, error: errors[place]! });
  };
  await passThroughDense(run, plan, { groups, crew, stepsOfGroup: 2, visit });
  return measured;
}

interface TriedBlock {
  readonly projections: readonly PlannedProjection[];
  readonly statistics: readonly ReducedSite[];
  readonly sparsity: number;
}

async function measureBlock(
  run: JobRun,
  { block, hiddenStates, prepare, progress }: DenseBlock,
  { projections, statistics, sparsity }: TriedBlock,
): Promise<number[]> {
  const prefix = `jobs/${run.jobId}/budget/${block.index}/`;
  for (const { site, meanSquares } of statistics) run.resources.publishBytes(`${prefix}${site}`, meanSquares);
  const inputs = projections.map(({ role, columns, site }) => ({
    projection: role,
    columns,
    meanSquaresResource: `${prefix}${site}`,
  }));
  const byGroup = new Map<number, MeasureSensitivityResponse>();
  try {
    await hiddenStates.forEachGroup(
      block.index,
      {
        prepare,
        advances: false,
        step: (member, groupIndices, onDone, linked) => {
          const attributes = { [Attribute.NODE]: member.node.name, [Attribute.GROUPS]: groupIndices.length };
          return withSpan(SpanName.MEASURE_SENSITIVITY, { attributes }, async () => {
            for await (const answer of member.measureSensitivity(block.shard.id, inputs, sparsity, groupIndices, linked)) {
              byGroup.set(answer.groupIndex, answer);
              onDone(answer.groupIndex);
              progress.advance();
            }
          });
        },
      },
      run.signal,
    );
  } finally {
    run.resources.withdraw(prefix);
  }
  return relativeErrors(block, byGroup, projections.length);
}

/** Adds the groups up in their order, so that the result does not depend on which node answered first. */
function relativeErrors(block: PlannedBlock, byGroup: ReadonlyMap<number, MeasureSensitivityResponse>, count: number): number[] {
  const sums = new Array<number>(count).fill(0);
  let energy = 0;
  for (const [, answer] of [...byGroup].sort(([left], [right]) => left - right)) {
    energy += answer.outputEnergy;
    for (let place = 0; place < count; place++) sums[place]! += answer.errors[place] ?? NaN;
  }
  if (sums.some((sum) => !Number.isFinite(sum)) || !Number.isFinite(energy)) {
    throw new SecateurError('CORRUPT_DATA', `The sensitivities of ${block.shard.id} are no numbers, or fewer than were asked for.`);
  }
  return sums.map((sum) => (energy > 0 ? sum / energy : 0));
}

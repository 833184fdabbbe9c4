import { SecateurError, splitIntoGroups, type PlannedBlock, type PlannedProjection } from '@secateur/core';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import type { MeasureSensitivityResponse } from '@secateur/proto/kernel_service';
import type { PrunePlan } from '../planner/job-plan.js';
import { triedSamples } from '../planner/workload.js';
import type { Crew } from '../scheduler/crew.js';
import { passThroughDense, type DenseBlock } from './dense-pass.js';
import { withInputSquares, type ScoredInputs } from './input-squares.js';
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
  const visit = (at: DenseBlock): Promise<void> =>
    withInputSquares(run, plan, at, async (scored) => {
      const errors = await measureBlock(run, at, scored, sparsity);
      for (const [place, projection] of scored.projections.entries()) measured.push({ projection, error: errors[place]! });
    });
  await passThroughDense(run, plan, { groups, crew, stepsOfGroup: 2, visit });
  return measured;
}

async function measureBlock(
  run: JobRun,
  { block, hiddenStates, prepare, progress }: DenseBlock,
  { inputs }: ScoredInputs,
  sparsity: number,
): Promise<number[]> {
  const byGroup = new Map<number, MeasureSensitivityResponse>();
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
  return relativeErrors(block, byGroup, inputs.length);
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

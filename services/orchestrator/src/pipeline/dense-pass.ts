import type { PlannedBlock } from '@secateur/core';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import { HiddenStream } from '@secateur/proto/kernel_service';
import type { CalibrationGroup } from '@secateur/proto/statistics';
import { describeShard, lastPrunedBlock, type PrunePlan } from '../planner/job-plan.js';
import type { Crew } from '../scheduler/crew.js';
import type { NodeSession } from '../scheduler/node-session.js';
import { HiddenStates } from './hidden-states.js';
import { StepProgress, type JobRun } from './job-run.js';
import { propagateStep } from './propagate-step.js';

/** A dense block while its groups are at its input. */
export interface DenseBlock {
  readonly block: PlannedBlock;
  readonly hiddenStates: HiddenStates;
  readonly prepare: (member: NodeSession, signal: AbortSignal) => Promise<void>;
  readonly progress: StepProgress;
}

export interface DensePass {
  readonly groups: readonly CalibrationGroup[];
  readonly crew: Crew;
  /** What each group is asked for in a block, beside being moved on. */
  readonly stepsOfGroup: number;
  readonly visit: (at: DenseBlock) => Promise<void>;
}

/**
 * Moves groups through the dense model, spread over the nodes, and visits every block up to the last of which something is pruned; nobody
 * reads what that one gives.
 */
export async function passThroughDense(run: JobRun, plan: PrunePlan, { groups, crew, stepsOfGroup, visit }: DensePass): Promise<void> {
  const last = lastPrunedBlock(plan);
  const hiddenStates = new HiddenStates(groups, crew, {
    blocks: last + 1,
    embedding: describeShard(plan, plan.model.embedding),
    block: (index) => describeShard(plan, plan.model.blocks[index]!.shard),
  });
  const blocks = plan.model.blocks.slice(0, last + 1);
  const progress = new StepProgress(run, 0, 'budget', hiddenStates.groupCount * ((stepsOfGroup + 1) * blocks.length - 1));
  for (const block of blocks) {
    const { id } = block.shard;
    const next = blocks[block.index + 1];
    const prepare = async (member: NodeSession, signal: AbortSignal): Promise<void> => {
      if (member.holds(id)) return;
      await member.loadShard(describeShard(plan, block.shard), signal);
      if (next !== undefined) member.prefetch(describeShard(plan, next.shard), signal);
    };
    const attributes = { [Attribute.JOB_ID]: run.jobId, [Attribute.LAYER_INDEX]: block.index };
    await withSpan(SpanName.LAYER, { attributes }, async () => {
      await visit({ block, hiddenStates, prepare, progress });
      if (block.index < last) {
        const step = propagateStep(id, [HiddenStream.PRUNED], progress);
        await hiddenStates.forEachGroup(block.index, { prepare, advances: true, step }, run.signal);
      }
      await crew.each((member, signal) => member.releaseShard(id, signal), run.signal);
    });
  }
}

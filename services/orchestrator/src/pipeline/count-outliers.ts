import type { PlannedBlock, ReducedSite } from '@secateur/core';
import { blockNameOf } from '@secateur/core';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import { describeShard, lastPrunedBlock, prunedProjections, type PrunePlan } from '../planner/job-plan.js';
import type { Crew } from '../scheduler/crew.js';
import type { NodeSession } from '../scheduler/node-session.js';
import { collectStatistics } from './collect-statistics.js';
import { HiddenStates } from './hidden-states.js';
import { StepProgress, type JobRun } from './job-run.js';
import { propagateStep } from './propagate-step.js';

/** What OWL asks of a block: the share of its scores, in per cent, that are outliers. */
export interface BlockOutlierShare {
  readonly block: PlannedBlock;
  /** Name in the checkpoint, such as `model.layers.3`. */
  readonly name: string;
  readonly outlierShare: number;
}

/**
 * Moves the calibration groups through the dense model and counts the outliers of every block of which something is pruned; projections that
 * are left out do not count. The groups are spread over the nodes, and so are the blocks that are counted in.
 */
export async function countOutliers(run: JobRun, plan: PrunePlan, threshold: number, crew: Crew): Promise<BlockOutlierShare[]> {
  const hiddenStates = new HiddenStates(plan.calibration.groups, crew, {
    embedding: describeShard(plan, plan.model.embedding),
    block: (index) => describeShard(plan, plan.model.blocks[index]!.shard),
  });
  const last = lastPrunedBlock(plan);
  const blocks = plan.model.blocks.slice(0, last + 1);
  // Each group is collected from and moved on in every block; nobody reads what the last one gives.
  const progress = new StepProgress(run, 0, 'budget', hiddenStates.groupCount * (2 * blocks.length - 1));
  const shares: BlockOutlierShare[] = [];
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
      const sites = [...new Set(prunedProjections(plan, block).map(({ site }) => site))];
      if (sites.length > 0) {
        const grams = { sites: [], holdOut: false };
        const pass = { layer: block.index, shardId: id, sites, grams, sketches: 0, prepare, onGroup: () => progress.advance() };
        const statistics = await collectStatistics(hiddenStates, pass, run.signal);
        shares.push(await countInBlock(run, plan, { block, statistics, threshold, crew, prepare }));
      }
      if (block.index < last) {
        const step = propagateStep(id, progress);
        await hiddenStates.forEachGroup(block.index, { prepare, advances: true, step }, run.signal);
      }
      await crew.each((member, signal) => member.releaseShard(id, signal), run.signal);
    });
  }
  return shares;
}

interface CountedBlock {
  readonly block: PlannedBlock;
  readonly statistics: readonly ReducedSite[];
  readonly threshold: number;
  readonly crew: Crew;
  readonly prepare: (member: NodeSession, signal: AbortSignal) => Promise<void>;
}

/** On one node: it takes no longer than to read the block's weights twice. */
async function countInBlock(
  run: JobRun,
  plan: PrunePlan,
  { block, statistics, threshold, crew, prepare }: CountedBlock,
): Promise<BlockOutlierShare> {
  const prefix = `jobs/${run.jobId}/budget/${block.index}/`;
  for (const { site, meanSquares } of statistics) run.resources.publishBytes(`${prefix}${site}`, meanSquares);
  const projections = prunedProjections(plan, block);
  const inputs = projections.map(({ role, columns, site }) => ({
    projection: role,
    columns,
    meanSquaresResource: `${prefix}${site}`,
  }));
  let outlierShare = 0;
  try {
    await crew.deal(
      [inputs],
      async (member, dealt, linked) => {
        await prepare(member, linked);
        const attributes = { [Attribute.NODE]: member.node.name, [Attribute.LAYER_INDEX]: block.index };
        const { outliers, weights } = await withSpan(SpanName.COUNT_OUTLIERS, { attributes }, () =>
          member.countOutliers(block.shard.id, dealt, threshold, linked),
        );
        outlierShare = (100 * outliers) / weights;
      },
      run.signal,
    );
  } finally {
    run.resources.withdraw(prefix);
  }
  return { block, name: blockNameOf(projections[0]!.name), outlierShare };
}

import type { PlannedBlock, ReducedSite } from '@secateur/core';
import { blockNameOf } from '@secateur/core';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import { prunedProjections, type PrunePlan } from '../planner/job-plan.js';
import type { Crew } from '../scheduler/crew.js';
import type { NodeSession } from '../scheduler/node-session.js';
import { collectStatistics, NO_GRAMS } from './collect-statistics.js';
import { passThroughDense, type DenseBlock } from './dense-pass.js';
import type { JobRun } from './job-run.js';

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
  const shares: BlockOutlierShare[] = [];
  const visit = async ({ block, hiddenStates, prepare, progress }: DenseBlock): Promise<void> => {
    const sites = [...new Set(prunedProjections(plan, block).map(({ site }) => site))];
    if (sites.length === 0) return;
    const { id: shardId } = block.shard;
    const pass = { layer: block.index, shardId, sites, grams: NO_GRAMS, sketches: 0, prepare, onGroup: () => progress.advance() };
    const statistics = await collectStatistics(hiddenStates, pass, run.signal);
    shares.push(await countInBlock(run, plan, { block, statistics, threshold, crew, prepare }));
  };
  await passThroughDense(run, plan, { groups: plan.calibration.groups, crew, stepsOfGroup: 1, visit });
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

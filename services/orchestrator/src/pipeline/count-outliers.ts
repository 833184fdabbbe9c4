import { blockNameOf, type PlannedBlock } from '@secateur/core';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import type { PrunePlan } from '../planner/job-plan.js';
import type { Crew } from '../scheduler/crew.js';
import { passThroughDense, type DenseBlock } from './dense-pass.js';
import { withInputSquares, type ScoredInputs } from './input-squares.js';
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
  const visit = (at: DenseBlock): Promise<void> =>
    withInputSquares(run, plan, at, async (scored) => {
      const outlierShare = await countInBlock(run, at, scored, threshold, crew);
      shares.push({ block: at.block, name: blockNameOf(scored.projections[0]!.name), outlierShare });
    });
  await passThroughDense(run, plan, { groups: plan.calibration.groups, crew, stepsOfGroup: 1, visit });
  return shares;
}

/** In per cent. On one node: it takes no longer than to read the block's weights twice. */
async function countInBlock(
  run: JobRun,
  { block, prepare }: DenseBlock,
  { inputs }: ScoredInputs,
  threshold: number,
  crew: Crew,
): Promise<number> {
  const [outlierShare = 0] = await crew.deal(
    [inputs],
    async (member, dealt, linked) => {
      await prepare(member, linked);
      const attributes = { [Attribute.NODE]: member.node.name, [Attribute.LAYER_INDEX]: block.index };
      const { outliers, weights } = await withSpan(SpanName.COUNT_OUTLIERS, { attributes }, () =>
        member.countOutliers(block.shard.id, dealt, threshold, linked),
      );
      return (100 * outliers) / weights;
    },
    { signal: run.signal },
  );
  return outlierShare;
}

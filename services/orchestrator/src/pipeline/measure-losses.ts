import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import { HiddenStream } from '@secateur/proto/kernel_service';
import type { ShardDescriptor } from '@secateur/proto/model';
import type { Measurement } from '../planner/measurement.js';
import type { Crew } from '../scheduler/crew.js';
import type { NodeSession } from '../scheduler/node-session.js';
import { HiddenStates } from './hidden-states.js';
import type { JobRun, StepProgress } from './job-run.js';
import { propagateStep } from './propagate-step.js';

/** The model that is measured. */
export interface MeasuredShards {
  readonly embedding: ShardDescriptor;
  readonly blocks: readonly ShardDescriptor[];
  readonly head: ShardDescriptor;
}

/**
 * Mean loss of the scored tokens of each sequence, in order. The groups are spread over the nodes and moved through the model block by block,
 * so that no node ever holds more than two blocks. `progressOf`: what tells how far a step of a layer has come; the head counts as the layer
 * after the last.
 */
export async function measureLosses(
  run: JobRun,
  { sequences, batches }: Measurement,
  { embedding, blocks, head }: MeasuredShards,
  crew: Crew,
  progressOf: (layer: number, step: string, groups: number) => StepProgress,
): Promise<number[]> {
  const hiddenStates = new HiddenStates(
    batches.map(({ group }) => group),
    crew,
    { blocks: blocks.length, embedding, block: (index) => blocks[index]! },
  );
  const inLayer = (layer: number, work: () => Promise<void>): Promise<void> =>
    withSpan(SpanName.LAYER, { attributes: { [Attribute.JOB_ID]: run.jobId, [Attribute.LAYER_INDEX]: layer } }, work);

  for (const [layer, block] of blocks.entries()) {
    const progress = progressOf(layer, 'propagate', hiddenStates.groupCount);
    await inLayer(layer, async () => {
      await hiddenStates.forEachGroup(
        layer,
        {
          prepare: loadWithNext(block, blocks[layer + 1] ?? head),
          advances: true,
          step: propagateStep(block.id, [HiddenStream.PRUNED], progress),
        },
        run.signal,
      );
      await crew.each((member, signal) => member.releaseShard(block.id, signal), run.signal);
    });
  }

  const losses = new Array<number>(sequences.length).fill(Number.NaN);
  const progress = progressOf(blocks.length, 'measure', hiddenStates.groupCount);
  await hiddenStates.forEachGroup(
    blocks.length,
    {
      prepare: loadWithNext(head),
      advances: false,
      step: (member, groupIndices, onGroup, signal) =>
        withSpan(SpanName.MEASURE, { attributes: { [Attribute.NODE]: member.node.name, [Attribute.GROUPS]: groupIndices.length } }, () =>
          member.measureLoss(
            head.id,
            groupIndices.map((groupIndex) => ({ groupIndex, tokens: tokensOf(batches[groupIndex]!) })),
            (groupIndex, groupLosses) => {
              for (const [sample, { place }] of batches[groupIndex]!.samples.entries()) losses[place] = groupLosses[sample] ?? Number.NaN;
              onGroup(groupIndex);
              progress.advance();
            },
            signal,
          ),
        ),
    },
    run.signal,
  );
  return losses;
}

function tokensOf({ samples }: Measurement['batches'][number]): { first: number[]; end: number[] } {
  return { first: samples.map(({ first }) => first), end: samples.map(({ end }) => end) };
}

/** Makes a member ready for a shard and begins to pull the one after it. */
function loadWithNext(shard: ShardDescriptor, next?: ShardDescriptor) {
  return async (member: NodeSession, signal: AbortSignal): Promise<void> => {
    if (member.holds(shard.id)) return;
    await member.loadShard(shard, signal);
    if (next !== undefined) member.prefetch(next, signal);
  };
}

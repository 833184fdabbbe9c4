import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import type { EvaluateReport } from '@secateur/proto/pruning_service';
import type { EvaluateSpec } from '@secateur/proto/job';
import type { ShardDescriptor } from '@secateur/proto/model';
import { describeShard, planJob, publishDenseTensors, type JobPlan } from '../planner/job-plan.js';
import type { Crew } from '../scheduler/crew.js';
import type { NodeSession } from '../scheduler/node-session.js';
import { HiddenStates } from './hidden-states.js';
import { announcePlan, gatherCrew, StepProgress, type JobRun } from './job-run.js';
import { propagateStep } from './propagate-step.js';

/** Measures the perplexity of a checkpoint layer by layer over the nodes of the pool (docs/algorithms.md, forward passes). */
export async function runEvaluate(run: JobRun, spec: EvaluateSpec): Promise<EvaluateReport> {
  const started = performance.now();
  const plan = await withSpan(SpanName.PLAN, {}, () =>
    planJob(run.jobId, { model: spec.model, use: 'evaluate', data: spec.data, allowedRoots: run.roots }, run.signal),
  );
  const crew = gatherCrew(run, plan, { $case: 'evaluate', value: spec });
  try {
    publishDenseTensors(plan, run.resources);
    announcePlan(run, plan, 0);
    const losses = await measureLosses(run, plan, crew);
    return {
      model: spec.model,
      perplexity: Math.exp(losses.reduce((sum, loss) => sum + loss, 0) / losses.length),
      windows: plan.tokens.samples,
      sequenceLength: plan.tokens.sequenceLength,
      losses,
      seconds: (performance.now() - started) / 1000,
    };
  } finally {
    await crew.close();
    run.resources.withdraw(`jobs/${run.jobId}/`);
    await plan.checkpoint.close();
  }
}

/** Mean loss of each window, in order. */
async function measureLosses(run: JobRun, plan: JobPlan, crew: Crew): Promise<number[]> {
  const { model } = plan;
  const shards = model.blocks.map((block) => describeShard(plan, block.shard));
  const head = describeShard(plan, model.head);
  const hiddenStates = new HiddenStates(plan.groups, crew, {
    embedding: describeShard(plan, model.embedding),
    block: (index) => shards[index]!,
  });
  const inLayer = (layer: number, work: () => Promise<void>): Promise<void> =>
    withSpan(SpanName.LAYER, { attributes: { [Attribute.JOB_ID]: run.jobId, [Attribute.LAYER_INDEX]: layer } }, work);

  for (const [layer, shard] of shards.entries()) {
    const progress = new StepProgress(run, layer, 'propagate', hiddenStates.groupCount);
    await inLayer(layer, async () => {
      await hiddenStates.forEachGroup(
        layer,
        {
          prepare: loadWithNext(shard, shards[layer + 1] ?? head),
          advances: true,
          step: propagateStep(shard.id, progress),
        },
        run.signal,
      );
      await crew.each((member, signal) => member.releaseShard(shard.id, signal), run.signal);
    });
  }

  const losses = new Map<number, readonly number[]>();
  const progress = new StepProgress(run, shards.length, 'measure', hiddenStates.groupCount);
  await hiddenStates.forEachGroup(
    shards.length,
    {
      prepare: loadWithNext(head),
      advances: false,
      step: (member, groupIndices, onGroup, signal) =>
        withSpan(SpanName.MEASURE, { attributes: { [Attribute.NODE]: member.node.name, [Attribute.GROUPS]: groupIndices.length } }, () =>
          member.measureLoss(
            head.id,
            groupIndices,
            (groupIndex, groupLosses) => {
              losses.set(groupIndex, groupLosses);
              onGroup(groupIndex);
              progress.advance();
            },
            signal,
          ),
        ),
    },
    run.signal,
  );
  return plan.groups.flatMap((group) => losses.get(group.index) ?? []);
}

/** Makes a member ready for a shard and begins to pull the one after it. */
function loadWithNext(shard: ShardDescriptor, next?: ShardDescriptor) {
  return async (member: NodeSession, signal: AbortSignal): Promise<void> => {
    if (member.holds(shard.id)) return;
    await member.loadShard(shard, signal);
    if (next !== undefined) member.prefetch(next, signal);
  };
}

import { accuracyOf, normalizedAccuracyOf, perplexityOf, SecateurError } from '@secateur/core';
import { SpanName, withSpan } from '@secateur/telemetry';
import type { EvaluateReport, TaskReport } from '@secateur/proto/pruning_service';
import type { EvaluateSpec } from '@secateur/proto/job';
import { describeShard, planJob, publishDenseTensors, type JobPlan } from '../planner/job-plan.js';
import type { Measurement } from '../planner/measurement.js';
import { measuringWith, workOf } from '../planner/workload.js';
import { announcePlan, gatherCrew, StepProgress, type JobRun } from './job-run.js';
import { measureLosses, type MeasuredShards } from './measure-losses.js';

/** Measures a checkpoint layer by layer over the nodes of the pool: its perplexity, its answers to tasks (docs/evaluation.md). */
export async function runEvaluate(run: JobRun, spec: EvaluateSpec): Promise<EvaluateReport> {
  const started = performance.now();
  const { input } = workOf({ $case: 'evaluate', value: spec });
  const plan = await withSpan(SpanName.PLAN, {}, () => planJob(run.jobId, { ...input, allowedRoots: run.roots }, run.signal));
  const crew = gatherCrew(run, plan, measuringWith(spec));
  try {
    const measurement = measurementOf(plan);
    publishDenseTensors(plan, run.resources);
    announcePlan(run, plan, 0);
    const progressOf = (layer: number, step: string, groups: number): StepProgress => new StepProgress(run, layer, step, groups);
    const losses = await measureLosses(run, measurement, describeDenseModel(plan), crew, progressOf);
    const windowLosses = losses.slice(0, measurement.windows);
    return {
      model: spec.model,
      perplexity: measurement.windows === 0 ? 0 : measuredPerplexity(measurement, losses),
      windows: measurement.windows,
      sequenceLength: measurement.windowLength,
      stride: measurement.stride,
      losses: windowLosses,
      tasks: reportTasks(measurement, losses),
      seconds: (performance.now() - started) / 1000,
    };
  } finally {
    await crew.close();
    run.resources.withdraw(`jobs/${run.jobId}/`);
    await plan.checkpoint.close();
  }
}

/** The shards of the checkpoint as it is. */
export function describeDenseModel(plan: JobPlan): MeasuredShards {
  const { embedding, blocks, head } = plan.model;
  return {
    embedding: describeShard(plan, embedding),
    blocks: blocks.map(({ shard }) => describeShard(plan, shard)),
    head: describeShard(plan, head),
  };
}

export function measuredPerplexity({ sequences, windows }: Measurement, losses: readonly number[]): number {
  return perplexityOf(sequences.slice(0, windows), losses);
}

function measurementOf({ measurement }: JobPlan): Measurement {
  if (measurement === undefined) throw new SecateurError('INTERNAL', 'An evaluate job was planned without a measurement.');
  return measurement;
}

/** Losses of the answers, which follow those of the windows, are turned into log-likelihoods and scored. */
function reportTasks({ sequences, windows, tasks }: Measurement, losses: readonly number[]): TaskReport[] {
  let place = windows;
  return tasks.map(({ definition, items }) => {
    const logLikelihoods = items.map(({ choices }) =>
      choices.map(() => {
        const { ids, first } = sequences[place]!;
        return -losses[place++]! * (ids.length - first);
      }),
    );
    return {
      task: definition.task,
      questions: items.length,
      accuracy: accuracyOf(items, logLikelihoods),
      normalizedAccuracy: definition.normalized ? normalizedAccuracyOf(items, logLikelihoods) : undefined,
    };
  });
}

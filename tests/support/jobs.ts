import { setTimeout as sleep } from 'node:timers/promises';
import type { PruningClient } from '@secateur/client';
import { Allocation, LayerQuality, RowQuality, Score, type AllocationOptions } from '@secateur/proto/allocation';
import {
  JobState,
  LayerBudget,
  Pattern,
  Preset,
  Propagation,
  QualityInputs,
  TokenSource,
  type EvaluateSpec,
  type JobEvent,
  type JobSpec,
  type PruneSpec,
} from '@secateur/proto/job';
import { Compute, HiddenStates } from '@secateur/proto/model';
import type { EvaluateReport, PruneReport } from '@secateur/proto/pruning_service';
import { fixturePath, modelPath, type ModelName } from './paths.js';

/** A prune job with the recorded calibration ids of a sample model. */
export function pruneSpec(
  model: ModelName,
  output: string,
  changes: Partial<PruneSpec> &
    Partial<Pick<AllocationOptions, 'allocation' | 'score' | 'groupPattern' | 'layerQuality' | 'rowQuality'>> = {},
): JobSpec {
  const {
    allocation = Allocation.TRIM,
    score = Score.WANDA,
    groupPattern,
    layerQuality = LayerQuality.UNSPECIFIED,
    rowQuality = RowQuality.UNSPECIFIED,
    ...rest
  } = changes;
  return {
    kind: {
      $case: 'prune',
      value: {
        model: modelPath(model),
        output,
        sparsity: 0.7,
        preset: Preset.PUBLISHED,
        options: {
          score,
          allocation,
          iterations: 0,
          learningRates: [],
          negativeLearningRates: [],
          forbidNegativeLearningRates: false,
          groupPattern,
          layerQuality,
          rowQuality,
        },
        layerBudget: LayerBudget.UNIFORM,
        qualityInputs: QualityInputs.LAST,
        sketches: 0,
        snapshotEvery: 0,
        layerBudgetOptions: undefined,
        pattern: groupPattern === undefined ? Pattern.UNSTRUCTURED : Pattern.GROUPED,
        compute: Compute.F32,
        hiddenStates: HiddenStates.F32,
        rowSparsities: '',
        propagation: Propagation.DENSE_BLOCK,
        repair: undefined,
        swap: undefined,
        calibration: TokenSource.fromPartial({
          path: fixturePath('calibration', `${model}-calibration.safetensors`),
          samples: 128,
          sequenceLength: 256,
        }),
        evaluation: undefined,
        selection: undefined,
        ...rest,
      },
    },
    recordTrace: false,
    maximumNodes: 0,
    ...NO_WISHES,
  };
}

/** How a job is treated when nothing is asked for. */
export const NO_WISHES = { priority: 0, maximumAttempts: 0, timeToLiveSeconds: 0, deleteOutput: false };

/** A perplexity job with the recorded evaluation ids of a sample model. */
export function evaluateSpec(model: ModelName, directory: string, changes: Partial<EvaluateSpec> = {}): JobSpec {
  return {
    kind: {
      $case: 'evaluate',
      value: {
        model: directory,
        data: TokenSource.fromPartial({ path: fixturePath('calibration', `${model}-eval.safetensors`) }),
        compute: Compute.F32,
        stride: 0,
        tasks: [],
        hiddenStates: HiddenStates.F32,
        ...changes,
      },
    },
    recordTrace: false,
    maximumNodes: 0,
    ...NO_WISHES,
  };
}

/** Runs a job to its end, hands every event to a listener, and fails with the job's error when it did not succeed. */
async function runJob(
  client: PruningClient,
  jobId: string,
  spec: JobSpec,
  onEvent: (event: JobEvent) => void = () => undefined,
): Promise<void> {
  await client.createJob({ jobId, spec });
  for await (const event of client.watchJob(jobId)) onEvent(event);
  const job = await client.getJob(jobId);
  if (job.state !== JobState.SUCCEEDED) throw new Error(`Job ${jobId} ended in state ${job.state}: ${job.error?.message ?? ''}`);
}

export async function prune(
  client: PruningClient,
  jobId: string,
  spec: JobSpec,
  onEvent?: (event: JobEvent) => void,
): Promise<PruneReport> {
  await runJob(client, jobId, spec, onEvent);
  const { report } = await client.getReport(jobId);
  if (report?.$case !== 'prune') throw new Error(`Job ${jobId} has no prune report.`);
  return report.value;
}

export async function evaluate(client: PruningClient, jobId: string, spec: JobSpec): Promise<EvaluateReport> {
  await runJob(client, jobId, spec);
  const { report } = await client.getReport(jobId);
  if (report?.$case !== 'evaluate') throw new Error(`Job ${jobId} has no evaluate report.`);
  return report.value;
}

/** Waits until a condition holds, checking often, at most for a bounded time. */
export async function eventually(condition: () => boolean | Promise<boolean>, what: string, timeoutMs = 30_000): Promise<void> {
  const until = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > until) throw new Error(`Still not so after ${timeoutMs} ms: ${what}`);
    await sleep(20);
  }
}

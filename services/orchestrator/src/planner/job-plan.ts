import { planModel, parseArchitecture, resolveSequenceLength, splitIntoGroups, type ModelPlan, type PlannedShard } from '@secateur/core';
import {
  loadCalibrationTokens,
  loadEvaluationTokens,
  openCheckpoint,
  scanTensors,
  type Checkpoint,
  type TokenSet,
} from '@secateur/checkpoint';
import type { TokenSource } from '@secateur/proto/job';
import type { ShardDescriptor } from '@secateur/proto/model';
import type { CalibrationGroup } from '@secateur/proto/statistics';
import type { Resources } from '../api/resources.js';

/** Everything a job works from, checked before any work is given out. */
export interface JobPlan {
  readonly jobId: string;
  readonly checkpoint: Checkpoint;
  readonly model: ModelPlan;
  /** Digest of each planned tensor, by name. */
  readonly digests: ReadonlyMap<string, string>;
  readonly tokens: TokenSet;
  readonly groups: readonly CalibrationGroup[];
}

/** Opens and checks a checkpoint and its data: header, architecture, shapes, finite values, tokens. */
export async function planJob(
  jobId: string,
  modelDirectory: string,
  data: { readonly use: 'calibrate' | 'evaluate'; readonly source: TokenSource },
  signal: AbortSignal,
): Promise<JobPlan> {
  const checkpoint = await openCheckpoint(modelDirectory);
  try {
    const architecture = parseArchitecture(checkpoint.config);
    const model = planModel(architecture, checkpoint.tensors);
    const sequenceLength = resolveSequenceLength(data.source.sequenceLength, architecture);
    const load = data.use === 'calibrate' ? loadCalibrationTokens : loadEvaluationTokens;
    const tokens = await load(
      { ...data.source, sequenceLength },
      { directory: checkpoint.directory, vocabularySize: architecture.vocabularySize },
    );
    const digests = await scanTensors(checkpoint, plannedTensorNames(model), { signal });
    return { jobId, checkpoint, model, digests, tokens, groups: splitIntoGroups(tokens.ids, tokens.samples, tokens.sequenceLength) };
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

/** Makes the tensors of the checkpoint available to nodes. */
export function publishDenseTensors(plan: JobPlan, resources: Resources): void {
  for (const name of plannedTensorNames(plan.model)) {
    const { bytes } = plan.checkpoint.tensors.get(name)!;
    resources.publish(denseResource(plan.jobId, name), {
      bytes,
      read: (offset, length, signal) => plan.checkpoint.readTensor(name, { offset, length, signal }),
    });
  }
}

export function denseResource(jobId: string, tensor: string): string {
  return `jobs/${jobId}/dense/${tensor}`;
}

/** The wire form of a shard with the checkpoint's own tensors. */
export function describeShard(plan: JobPlan, shard: PlannedShard): ShardDescriptor {
  return {
    id: shard.id,
    tensors: shard.tensors.map(({ name, role, dataType, shape }) => ({
      name,
      role,
      dataType,
      shape: [...shape],
      resource: denseResource(plan.jobId, name),
      bytes: plan.checkpoint.tensors.get(name)!.bytes,
      digest: plan.digests.get(name) ?? '',
    })),
  };
}

function plannedTensorNames(model: ModelPlan): string[] {
  const shards = [model.embedding, ...model.blocks.map((block) => block.shard), model.head];
  return [...new Set(shards.flatMap((shard) => shard.tensors.map((tensor) => tensor.name)))];
}

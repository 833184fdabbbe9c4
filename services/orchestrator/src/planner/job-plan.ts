import {
  SecateurError,
  planModel,
  parseArchitecture,
  resolveSequenceLength,
  splitIntoGroups,
  type ModelPlan,
  type PlannedShard,
} from '@secateur/core';
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

export interface PlanRequest {
  readonly jobId: string;
  /** Folder of the checkpoint. */
  readonly model: string;
  readonly use: 'calibrate' | 'evaluate';
  readonly data: TokenSource | undefined;
  /** Folders that files may really be in once symbolic links are followed. */
  readonly allowedRoots: readonly string[];
}

/** Opens and checks a checkpoint and its data: header, architecture, shapes, finite values, tokens. */
export async function planJob({ jobId, model: directory, use, data, allowedRoots }: PlanRequest, signal: AbortSignal): Promise<JobPlan> {
  if (data === undefined) throw new SecateurError('INVALID_REQUEST', 'The job names no data to read tokens from.');
  const checkpoint = await openCheckpoint(directory, { allowedRoots });
  try {
    const architecture = parseArchitecture(checkpoint.config);
    const model = planModel(architecture, checkpoint.floatTensors());
    const load = use === 'calibrate' ? loadCalibrationTokens : loadEvaluationTokens;
    const tokens = await load(
      data,
      {
        directory: checkpoint.directory,
        vocabularySize: architecture.vocabularySize,
        defaultSequenceLength: resolveSequenceLength(data.sequenceLength, architecture),
        allowedRoots,
      },
      { signal },
    );
    // Ids bring their own length, which must fit the model too.
    resolveSequenceLength(tokens.sequenceLength, architecture);
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
      read: async (offset, _length, signal, room) => {
        await plan.checkpoint.readTensorInto(name, room, { offset, signal });
        return room;
      },
    });
  }
}

function denseResource(jobId: string, tensor: string): string {
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

import {
  SecateurError,
  planModel,
  plannedTensors,
  parseArchitecture,
  resolveSequenceLength,
  splitIntoGroups,
  type ModelPlan,
  type PlannedBlock,
  type PlannedProjection,
  type PlannedShard,
} from '@secateur/core';
import {
  joinLocation,
  loadCalibrationTokens,
  openCheckpoint,
  scanTensors,
  type ScannedTensor,
  type Checkpoint,
  type TokenSet,
} from '@secateur/checkpoint';
import type { TokenSource } from '@secateur/proto/job';
import { DataType, type Architecture, type ShardDescriptor } from '@secateur/proto/model';
import type { CalibrationGroup } from '@secateur/proto/statistics';
import type { Resources } from '@secateur/rpc';
import { loadMeasurement, type Measurement, type MeasurementSource } from './measurement.js';
import { resolveTargets, type TargetRequest, type Targets } from './targets.js';
import { readTokenSource } from './token-source.js';

/** What of a job's input decides how much work and memory it takes. */
export interface InputOutline extends Pick<Targets, 'targets' | 'computedBudget'> {
  readonly model: ModelPlan;
  /** What is calibrated with; undefined in a job that only measures. */
  readonly calibration: CalibrationOutline | undefined;
  /** What is measured; undefined in a job that measures nothing. */
  readonly measurement: Measurement | undefined;
}

/** A group without its tokens. */
export type GroupOutline = Omit<CalibrationGroup, 'tokenIds'>;

/** How much is calibrated with. */
interface CalibrationOutline {
  readonly tokens: Pick<TokenSet, 'samples' | 'sequenceLength'>;
  readonly groups: readonly GroupOutline[];
}

/** The checkpoint of a job, and what it is run on. */
interface JobInput extends InputOutline, Targets {
  readonly checkpoint: Checkpoint;
  readonly calibration: Calibration | undefined;
}

export interface Calibration {
  readonly tokens: TokenSet;
  readonly groups: readonly CalibrationGroup[];
}

/** Everything a job works from, checked before any work is given out. */
export interface JobPlan extends JobInput {
  readonly jobId: string;
  /** Each planned tensor as it was read, by name. */
  readonly scanned: ReadonlyMap<string, ScannedTensor>;
}

/** The plan of a job that prunes. */
export type PrunePlan = JobPlan & { readonly calibration: Calibration };

/** Data to calibrate with. */
export interface CalibrationSource {
  readonly data: TokenSource;
  /** Swaps hold some of the samples out, so that there must be two. */
  readonly holdsOut: boolean;
}

export interface InputRequest extends TargetRequest {
  /** Folder of the checkpoint. */
  readonly model: string;
  readonly calibration: CalibrationSource | undefined;
  readonly measurement: MeasurementSource | undefined;
  /** Folders that files may really be in once symbolic links are followed. */
  readonly allowedRoots: readonly string[];
}

/** Opens and checks a checkpoint and its data: header, architecture, shapes, tokens. Reads no weights. */
async function openJobInput(request: InputRequest, signal: AbortSignal): Promise<JobInput> {
  const { model: directory, allowedRoots } = request;
  if (request.calibration === undefined && request.measurement === undefined)
    throw new SecateurError('INVALID_REQUEST', 'The job names no data to read tokens from.');
  const checkpoint = await openCheckpoint(directory, { allowedRoots });
  try {
    const architecture = parseArchitecture(checkpoint.config);
    const model = planModel(architecture, checkpoint.tensors);
    const targets = await resolveTargets(request, model, allowedRoots);
    const owner = { directory: checkpoint.directory, architecture, allowedRoots };
    const calibration = request.calibration && (await loadCalibration(request.calibration, owner, signal));
    const measurement = request.measurement && (await loadMeasurement(request.measurement, owner, signal));
    return { checkpoint, model, ...targets, calibration, measurement };
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

/** The tokens that a job calibrates with. `directory`: of the model, for its tokenizer. */
export async function loadCalibration(
  { data, holdsOut }: CalibrationSource,
  { directory, architecture, allowedRoots }: { directory: string; architecture: Architecture; allowedRoots: readonly string[] },
  signal: AbortSignal,
): Promise<Calibration> {
  const defaultSequenceLength = resolveSequenceLength(data.sequenceLength, architecture);
  const consumer = { directory, vocabularySize: architecture.vocabularySize, defaultSequenceLength, allowedRoots };
  const tokens = await loadCalibrationTokens(readTokenSource(data), consumer, { signal });
  // Ids bring their own length, which must fit the model too.
  resolveSequenceLength(tokens.sequenceLength, architecture);
  if (holdsOut && tokens.samples < 2) {
    throw new SecateurError(
      'INVALID_REQUEST',
      'The calibration data has 1 sample; swaps hold some samples out and need 2 at least. Give more, or leave the swaps out.',
    );
  }
  return { tokens, groups: splitIntoGroups(tokens.ids, tokens.samples, tokens.sequenceLength) };
}

/** The same with the weights read once: their values are finite, their digests and checksums known. */
export async function planJob(jobId: string, request: InputRequest, signal: AbortSignal): Promise<JobPlan> {
  const input = await openJobInput(request, signal);
  try {
    return { ...input, jobId, scanned: await scanTensors(input.checkpoint, plannedTensorNames(input.model), { signal }) };
  } catch (error) {
    await input.checkpoint.close();
    throw error;
  }
}

/** The samples of a job and the tokens of the longest: those it calibrates with, or else those it measures. */
export function sizeOf({ calibration, measurement }: InputOutline): { samples: number; sequenceLength: number } {
  if (calibration !== undefined) return { samples: calibration.tokens.samples, sequenceLength: calibration.tokens.sequenceLength };
  const longest = measurement?.batches[0]?.group.sequenceLength ?? 0;
  return { samples: measurement?.sequences.length ?? 0, sequenceLength: longest };
}

/** The projections of a block that are pruned, in network order. */
export function prunedProjections({ targets }: InputOutline, block: PlannedBlock): PlannedProjection[] {
  return block.projections.filter(({ name }) => targets.has(name));
}

/** Index of the last block that is pruned: nobody reads what it would give. */
export function lastPrunedBlock(input: InputOutline): number {
  return input.model.blocks.findLastIndex((block) => prunedProjections(input, block).length > 0);
}

/** Makes the tensors of the checkpoint available to nodes. */
export function publishDenseTensors(plan: JobPlan, resources: Resources): void {
  for (const name of plannedTensorNames(plan.model)) {
    const { bytes } = plan.checkpoint.tensors.get(name)!;
    resources.publish(denseResource(plan.jobId, name), {
      bytes,
      checksums: plan.scanned.get(name)?.checksums,
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

/** No file of a checkpoint: the bytes can only be pulled. */
export const NOWHERE = { path: '', pathOffset: 0 };

/** The wire form of a shard with the checkpoint's own tensors. */
export function describeShard(plan: JobPlan, shard: PlannedShard): ShardDescriptor {
  const layout = describeLayout(shard);
  return {
    ...layout,
    tensors: layout.tensors.map((tensor) => ({
      ...tensor,
      resource: denseResource(plan.jobId, tensor.name),
      digest: plan.scanned.get(tensor.name)?.digest ?? '',
      ...placeOf(plan, tensor.name),
    })),
  };
}

/** Where a node that shares the volume, or reaches the store, finds a tensor. */
function placeOf({ checkpoint }: JobPlan, name: string): { readonly path: string; readonly pathOffset: number } {
  const entry = checkpoint.tensors.get(name);
  return entry === undefined ? NOWHERE : { path: joinLocation(checkpoint.directory, entry.file), pathOffset: entry.fileOffset };
}

/** The wire form of a shard that nobody is to pull: names, roles, types, shapes and sizes. */
export function describeLayout(shard: PlannedShard): ShardDescriptor {
  return {
    id: shard.id,
    attentionWindow: shard.attentionWindow,
    tensors: shard.tensors.map(({ name, role, dataType, shape }) => ({
      name,
      role,
      dataType,
      shape: [...shape],
      resource: '',
      bytes: shape.reduce((product, size) => product * size, dataType === DataType.F32 ? 4 : 2),
      digest: '',
      ...NOWHERE,
    })),
  };
}

function plannedTensorNames(model: ModelPlan): string[] {
  return plannedTensors(model).map(({ name }) => name);
}

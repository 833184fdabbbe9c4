import type { Engine } from '@secateur/native';
import { allocationsAtOnce, SecateurError } from '@secateur/core';
import { Repair, Score } from '@secateur/proto/allocation';
import { SERVED_FETCH_BYTES } from '@secateur/rpc';
import { TensorRole, type Architecture, type Compute, type HiddenStates, type ShardDescriptor } from '@secateur/proto/model';
import type { MemoryItem, MemoryPlan, Workload } from '@secateur/proto/plan';
import { toEngineArchitecture, toEnginePrecision, toEngineWorkload, withServiceErrors } from '../engine/wire-types.js';
import { PULLS_AT_ONCE } from './load-tensors.js';

/** What the heap of JavaScript and its compiled code grow by once a job runs. */
const WORKING_HEAP_BYTES = 32 * 2 ** 20;

/** What was read from the connection stays in memory until V8 collects it, which it does at the latest at about this size. */
const UNCOLLECTED_BYTES = 64 * 2 ** 20;

/** A reader of each input of a block. */
const INPUTS: readonly TensorRole[] = [TensorRole.QUERY_WEIGHT, TensorRole.OUTPUT_WEIGHT, TensorRole.UP_WEIGHT, TensorRole.DOWN_WEIGHT];
/** Columns of a tile of sums. */
const GRAM_TILE = 256;

/** What is known of this node when a session is planned. */
export interface NodeMemory {
  readonly engine: Engine;
  /** Resident memory of the process before its first session. */
  readonly idleBytes: number;
  readonly memoryBudgetBytes: number;
}

export interface PlannedSession {
  readonly architecture: Architecture | undefined;
  readonly compute: Compute;
  readonly hiddenStates: HiddenStates;
  readonly workload: Workload | undefined;
}

/** The most memory a session will take: what the engine counts, and what the process holds besides. */
export function planMemory({ engine, idleBytes, memoryBudgetBytes }: NodeMemory, session: PlannedSession): MemoryPlan {
  const { architecture, workload } = session;
  if (architecture === undefined || workload === undefined) {
    throw new SecateurError('INVALID_REQUEST', 'A plan of memory needs architecture and workload.');
  }
  const plan = withServiceErrors(() => engine.planSession(...largestSession(engine, architecture, session, workload)));
  const engineItems = plan.items.map(({ purpose, bytes }) => ({ purpose, bytes }));
  const process: MemoryItem[] = [
    { purpose: 'Node.js and the service', bytes: idleBytes + WORKING_HEAP_BYTES },
    { purpose: 'shards being received', bytes: receivedBytes(workload) },
    { purpose: 'shards being passed on to another node', bytes: relayedBytes(workload) },
    { purpose: 'quality inputs of a block', bytes: qualityInputBytes(workload) },
    { purpose: 'masks on their way to the orchestrator', bytes: answeredMaskBytes(workload) },
    { purpose: 'masks or repaired weights being received', bytes: appliedBytes(workload) },
    ...(needsGramMatrices(workload) ? [{ purpose: 'Gram matrices that nodes share', bytes: sharedGramBytes(workload) }] : []),
    ...plan.pinned.map(({ purpose, bytes }) => ({ purpose, bytes })),
  ];
  const engineBytes = sumBytes(engineItems);
  return {
    step: plan.step,
    engine: engineItems,
    engineBytes,
    process,
    residentBytes: sumBytes(process) + (engine.description.backend === 'cpu' ? engineBytes : 0),
    availableBytes: Math.max(0, memoryBudgetBytes - engine.memoryUsedBytes()),
  };
}

/**
 * What to plan a session by, and to open it with. Where projections drop different shares, all are taken to drop the one that takes the
 * most memory: weights that lose few stay dense, of those that lose many the kept ones are stored once more.
 */
export function largestSession(
  engine: Engine,
  architecture: Architecture,
  precision: Pick<PlannedSession, 'compute' | 'hiddenStates'>,
  workload: Workload,
): Parameters<Engine['planSession']> {
  const shares = workload.sparsities.length === 0 ? [0] : workload.sparsities;
  const sessions = shares.map((sparsity): Parameters<Engine['planSession']> => [
    toEngineArchitecture(architecture),
    toEnginePrecision(precision),
    toEngineWorkload(workload, sparsity),
  ]);
  if (sessions.length === 1) return sessions[0]!;
  const bytes = sessions.map((session) => sumBytes(engine.planSession(...session).items));
  return sessions[bytes.indexOf(Math.max(...bytes))]!;
}

/** Whether masks or kept weights of a job change after the allocation. */
function needsGramMatrices(workload: Workload): boolean {
  return changesKeptWeights(workload) || workload.swaps;
}

function changesKeptWeights({ repair, score }: Workload): boolean {
  return score === Score.SPARSEGPT || repair === Repair.FIT || repair === Repair.ADMM;
}

/**
 * Of each input that is summed up at a time: the sums, half a matrix of pairs of float64 in tiles, and the matrix in float32; with swaps, those of
 * the samples that are held out too, and with dense targets the drift, whose sums are of a whole matrix.
 */
function sharedGramBytes({ block, maskedInStages, swaps, denseTargets }: Workload): number {
  const matrices = swaps ? 2 : 1;
  const hiddenSize = inputWidths(block)[0]!;
  const bytes = inputWidths(block).map(
    (columns) =>
      matrices * (8 * columns * (columns + GRAM_TILE) + 4 * columns * columns) + (denseTargets ? 20 * columns * (columns + hiddenSize) : 0),
  );
  return maskedInStages ? Math.max(...bytes) : bytes.reduce((sum, size) => sum + size, 0);
}

/** A shard is received in chunks into memory that is kept for the next shard. */
function receivedBytes({ embedding, block, head }: Workload): number {
  const largest = Math.max(...[embedding, block, head].map(storedBytes));
  return largest + Math.min(2 * largest, UNCOLLECTED_BYTES);
}

/** They, and masks, stay where they were received; one node at a time is sent chunks of them. */
function relayedBytes({ embedding, block, head }: Workload): number {
  return Math.min(PULLS_AT_ONCE * SERVED_FETCH_BYTES, Math.max(...[embedding, block, head].map(storedBytes)));
}

/** Those of each input site, pulled once, and the copies that allocations read. */
function qualityInputBytes(workload: Workload): number {
  const widths = inputWidths(workload.block);
  return 4 * workload.allocationSamples * widths.reduce((sum, width) => sum + width, atOnce(workload) * Math.max(...widths));
}

/** Of the largest projections: they are sent while others are allocated. */
function answeredMaskBytes(workload: Workload): number {
  if (workload.allocationSamples === 0) return 0;
  return atOnce(workload) * Math.max(0, ...maskSizes(workload.block));
}

/** Those of a whole block, in memory that is kept for the next block and from which another node has them. */
function appliedBytes(workload: Workload): number {
  if (workload.allocationSamples === 0) return 0;
  if (changesKeptWeights(workload)) return storedBytes(workload.block);
  return maskSizes(workload.block).reduce((sum, bytes) => sum + bytes, 0);
}

function maskSizes(block: ShardDescriptor | undefined): number[] {
  return (block?.tensors ?? []).map(({ shape: [rows = 0, columns = 0] }) => rows * Math.ceil(columns / 8));
}

function atOnce(workload: Workload): number {
  return allocationsAtOnce({ usesGramMatrices: needsGramMatrices(workload) });
}

/** Columns of each input of a block. */
function inputWidths(block: ShardDescriptor | undefined): number[] {
  return INPUTS.map((role) => block?.tensors.find((tensor) => tensor.role === role)?.shape[1] ?? 0);
}

function storedBytes(shard: ShardDescriptor | undefined): number {
  return shard?.tensors.reduce((sum, { bytes }) => sum + bytes, 0) ?? 0;
}

function sumBytes(items: readonly { readonly bytes: number }[]): number {
  return items.reduce((sum, { bytes }) => sum + bytes, 0);
}

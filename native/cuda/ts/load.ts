import { createRequire } from 'node:module';
import type {
  AllocatedRows,
  AllocationOptions,
  ElementType,
  EngineArchitecture,
  EngineGroup,
  GramPart,
  GramSites,
  EngineMemoryPlan,
  EngineTensor,
  EngineWorkload,
  InputSite,
  BlockSensitivity,
  OutlierCount,
  Placement,
  Precision,
  Projection,
  ProjectionInputSquares,
  RepairedRows,
  RepairInput,
  RepairOptions,
  ReducedStatistics,
  SiteStatistics,
  Timed,
  TokenRange,
} from './engine.js';

/** A call under way in the addon. */
export interface NativeCall<Value> {
  readonly promise: Promise<Timed<Value>>;
  cancel(): void;
}

/** class Session of the addon. Same methods as EngineSession, in the same order. */
export interface NativeSession {
  loadShard(shardId: string, tensors: readonly EngineTensor[], attentionWindow: number): NativeCall<void>;
  releaseShard(shardId: string): NativeCall<void>;
  embed(shardId: string, group: EngineGroup): NativeCall<void>;
  collectStatistics(
    shardId: string,
    groupIndex: number,
    sites: readonly InputSite[],
    sketches: number,
  ): NativeCall<readonly SiteStatistics[]>;
  propagate(shardId: string, groupIndex: number): NativeCall<void>;
  propagateDense(shardId: string, groupIndex: number): NativeCall<void>;
  measureLoss(shardId: string, groupIndex: number, ranges: readonly TokenRange[] | undefined): NativeCall<Float64Array>;
  lastLogits(shardId: string, groupIndex: number): NativeCall<Float32Array>;
  allocateRows(
    shardId: string,
    projection: Projection,
    targetSparsity: number,
    statistics: ReducedStatistics,
    allocation: AllocationOptions,
  ): NativeCall<AllocatedRows>;
  measureSensitivity(
    shardId: string,
    groupIndices: readonly number[],
    projections: readonly ProjectionInputSquares[],
    sparsity: number,
  ): NativeCall<readonly BlockSensitivity[]>;
  countOutliers(shardId: string, projections: readonly ProjectionInputSquares[], threshold: number): NativeCall<OutlierCount>;
  eigenvalues(shardId: string, projection: Projection): NativeCall<Float64Array>;
  applyMask(shardId: string, projection: Projection, mask: Uint8Array): NativeCall<void>;
  collectWithGram(
    shardId: string,
    groupIndex: number,
    sites: readonly InputSite[],
    grams: GramSites,
    sketches: number,
  ): NativeCall<readonly SiteStatistics[]>;
  takeGramSums(shardId: string, site: InputSite): NativeCall<GramPart>;
  reduceGram(columns: number, driftRows: number, sums: readonly Uint8Array[]): NativeCall<Float32Array>;
  repairRows(shardId: string, projection: Projection, input: RepairInput, repair: RepairOptions): NativeCall<RepairedRows>;
  replaceWeights(shardId: string, projection: Projection, elementType: ElementType, bytes: Uint8Array): NativeCall<void>;
  releaseGroup(groupIndex: number): NativeCall<void>;
  saveHiddenStates(groupIndex: number): NativeCall<Uint8Array>;
  restoreHiddenStates(group: EngineGroup, saved: Uint8Array): NativeCall<void>;
  close(): NativeCall<void>;
}

/** class Engine of the addon. */
export interface NativeEngine {
  describe(): {
    readonly backend: 'cpu' | 'cuda';
    readonly reason: string;
    readonly instructionSet: string;
    readonly gemm: string;
    readonly threads: number;
  };
  memoryUsedBytes(): number;
  planSession(architecture: EngineArchitecture, precision: Precision, workload: EngineWorkload): EngineMemoryPlan;
  openSession(architecture: EngineArchitecture, precision: Precision, workload: EngineWorkload | undefined): NativeSession;
  measureProductSpeed(precision: Precision): NativeCall<number>;
  allocateMatrix(
    weights: Float32Array,
    rows: number,
    columns: number,
    targetSparsity: number,
    statistics: ReducedStatistics,
    allocation: AllocationOptions,
  ): NativeCall<AllocatedRows>;
  close(): void;
}

interface NativeAddon {
  readonly Engine: new (options: {
    readonly backend: 'auto' | 'cpu' | 'cuda';
    readonly threads: number;
    readonly memoryBudgetBytes: number;
    readonly placement: Placement | undefined;
  }) => NativeEngine;
  countCudaDevices(): number;
  moveWithChecksum(target: Uint8Array, source: Uint8Array): Uint8Array;
  chunkChecksums(bytes: Uint8Array, chunkBytes: number): Promise<Uint8Array>;
}

const ADDON_PATH = '../build/Release/secateur_native.node';

/** Loads the addon, which `npm run build` makes. */
export function loadAddon(): NativeAddon {
  try {
    return createRequire(import.meta.url)(ADDON_PATH) as NativeAddon;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`The native engine cannot be loaded; run \`npm run build\` in the repository. ${reason}`, { cause: error });
  }
}

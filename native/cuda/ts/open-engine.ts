import { availableParallelism } from 'node:os';
import { EngineError, type CallOptions, type Engine, type EngineOptions, type EngineSession, type Timed } from './engine.js';
import { loadAddon, type NativeCall, type NativeEngine, type NativeSession } from './load.js';

const VERSION = '0.1.0';

/** Engines whose threads have to stop before the process frees what they use. */
const openEngines = new Set<NativeEngine>();

function closeAtExit(native: NativeEngine): void {
  if (openEngines.size === 0) process.once('exit', closeAll);
  openEngines.add(native);
}

function closeNow(native: NativeEngine): void {
  native.close();
  openEngines.delete(native);
  if (openEngines.size === 0) process.off('exit', closeAll);
}

function closeAll(): void {
  for (const native of openEngines) native.close();
}

/** Opens the engine of this machine. Throws an EngineError when the options cannot be met. */
export function openEngine(options: EngineOptions): Engine {
  const { backend, memoryBudgetBytes, placement } = options;
  const threads = options.threads === 0 ? (placement?.cpus.length ?? availableParallelism()) : options.threads;
  const { Engine: NativeEngineClass } = loadAddon();
  const native = translateErrors(() => new NativeEngineClass({ backend, threads, memoryBudgetBytes, placement }));
  closeAtExit(native);
  return wrapEngine(native);
}

function wrapEngine(native: NativeEngine): Engine {
  return {
    description: { ...native.describe(), version: VERSION },
    memoryUsedBytes: () => native.memoryUsedBytes(),
    planSession: (architecture, precision, workload) => translateErrors(() => native.planSession(architecture, precision, workload)),
    openSession: (architecture, precision, workload) =>
      wrapSession(translateErrors(() => native.openSession(architecture, precision, workload))),
    measureProductSpeed: (precision, options) => run(() => native.measureProductSpeed(precision), options),
    allocateMatrix: (weights, rows, columns, target, statistics, allocation, options) =>
      run(() => native.allocateMatrix(weights, rows, columns, target, statistics, allocation), options),
    close: () => {
      closeNow(native);
      return Promise.resolve();
    },
  };
}

function wrapSession(native: NativeSession): EngineSession {
  return {
    loadShard: (shardId, tensors, options) => run(() => native.loadShard(shardId, tensors, options?.attentionWindow ?? 0), options),
    releaseShard: async (shardId) => {
      await run(() => native.releaseShard(shardId));
    },
    embed: (shardId, group, options) => run(() => native.embed(shardId, group), options),
    collectStatistics: (shardId, groupIndex, sites, options) =>
      run(() => native.collectStatistics(shardId, groupIndex, sites, options?.sketches ?? 0), options),
    propagate: (shardId, groupIndex, options) => run(() => native.propagate(shardId, groupIndex), options),
    propagateDense: (shardId, groupIndex, options) => run(() => native.propagateDense(shardId, groupIndex), options),
    measureLoss: (shardId, groupIndex, ranges, options) => run(() => native.measureLoss(shardId, groupIndex, ranges), options),
    lastLogits: (shardId, groupIndex, options) => run(() => native.lastLogits(shardId, groupIndex), options),
    allocateRows: (shardId, projection, target, statistics, allocation, options) =>
      run(() => native.allocateRows(shardId, projection, target, statistics, allocation), options),
    measureSensitivity: (shardId, groupIndices, projections, sparsity, options) =>
      run(() => native.measureSensitivity(shardId, groupIndices, projections, sparsity), options),
    countOutliers: (shardId, projections, threshold, options) => run(() => native.countOutliers(shardId, projections, threshold), options),
    eigenvalues: (shardId, projection, options) => run(() => native.eigenvalues(shardId, projection), options),
    applyMask: (shardId, projection, mask, options) => run(() => native.applyMask(shardId, projection, mask), options),
    collectWithGram: (shardId, groupIndex, sites, grams, options) =>
      run(() => native.collectWithGram(shardId, groupIndex, sites, grams, options?.sketches ?? 0), options),
    takeGramSums: (shardId, site, options) => run(() => native.takeGramSums(shardId, site), options),
    reduceGram: (columns, driftRows, sums, options) => run(() => native.reduceGram(columns, driftRows, sums), options),
    repairRows: (shardId, projection, input, repair, options) => run(() => native.repairRows(shardId, projection, input, repair), options),
    replaceWeights: (shardId, projection, elementType, bytes, options) =>
      run(() => native.replaceWeights(shardId, projection, elementType, bytes), options),
    releaseGroup: async (groupIndex) => {
      await run(() => native.releaseGroup(groupIndex));
    },
    saveHiddenStates: (groupIndex, options) => run(() => native.saveHiddenStates(groupIndex), options),
    restoreHiddenStates: (group, saved, options) => run(() => native.restoreHiddenStates(group, saved), options),
    close: async () => {
      await run(() => native.close());
    },
  };
}

/** Runs a call of the addon; aborting the signal cancels it. */
async function run<Value>(begin: () => NativeCall<Value>, { signal }: CallOptions = {}): Promise<Timed<Value>> {
  if (signal?.aborted) throw new EngineError('CANCELLED', 'The call was cancelled before it began.');
  const call = translateErrors(begin);
  const cancel = (): void => {
    call.cancel();
  };
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    return await call.promise;
  } catch (error) {
    throw toEngineError(error);
  } finally {
    signal?.removeEventListener('abort', cancel);
  }
}

function translateErrors<Result>(work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    throw toEngineError(error);
  }
}

const CODES: readonly string[] = ['INVALID_ARGUMENT', 'FAILED_PRECONDITION', 'RESOURCE_EXHAUSTED', 'CANCELLED', 'NON_FINITE', 'INTERNAL'];

/** An error as the addon throws it, in whatever realm that is. */
interface NativeError {
  readonly code: EngineError['code'];
  readonly message: string;
  readonly neededBytes?: number;
  readonly availableBytes?: number;
}

function isNativeError(error: unknown): error is NativeError {
  return typeof error === 'object' && error !== null && 'code' in error && CODES.some((code) => code === error.code) && 'message' in error;
}

function toEngineError(error: unknown): unknown {
  return isNativeError(error) ? new EngineError(error.code, error.message, error.neededBytes, error.availableBytes) : error;
}

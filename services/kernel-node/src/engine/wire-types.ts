import type {
  AllocationOptions,
  Compute as EngineCompute,
  HiddenStates as EngineHiddenStates,
  EngineArchitecture,
  EngineDescription,
  EngineGroup,
  EngineRotaryScaling,
  EngineTensorLayout,
  EngineWorkload,
  InputSite,
  Placement,
  Precision,
  Projection,
  Repair,
  TensorRole,
  ElementType,
} from '@secateur/native';
import { EngineError } from '@secateur/native';
import { formatCpuList, SecateurError, type ErrorReason } from '@secateur/core';
import {
  Allocation,
  LayerQuality,
  Repair as WireRepair,
  RowQuality,
  Score,
  type AllocationOptions as WireAllocationOptions,
} from '@secateur/proto/allocation';
import type { EngineDescription as WireEngine } from '@secateur/proto/kernel_service';
import {
  Compute,
  DataType,
  FeedForward,
  HiddenStates,
  Normalization,
  PositionEncoding,
  RotaryScalingKind,
  TensorRole as WireRole,
  type Architecture,
  type RotaryScaling,
  type ShardDescriptor,
  type TensorDescriptor,
} from '@secateur/proto/model';
import { BlockMetric, type Workload } from '@secateur/proto/plan';
import { InputSite as WireSite, type CalibrationGroup } from '@secateur/proto/statistics';

/** Wire value → engine word. A value without a word is refused by name. */
function translate<Word>(table: ReadonlyMap<number, Word>, value: number, field: string): Word {
  const word = table.get(value);
  if (word === undefined) {
    throw new SecateurError('INVALID_REQUEST', `${field} has the value ${value}, which this node does not know.`, {
      violations: [{ field, description: `must be one of ${[...table.keys()].join(', ')}` }],
    });
  }
  return word;
}

const NORMALIZATIONS = new Map<number, EngineArchitecture['normalization']>([
  [Normalization.RMS, 'rms'],
  [Normalization.LAYER, 'layer'],
]);

const POSITION_ENCODINGS = new Map<number, EngineArchitecture['positionEncoding']>([
  [PositionEncoding.ROTARY, 'rotary'],
  [PositionEncoding.LEARNED, 'learned'],
]);

const FEED_FORWARDS = new Map<number, EngineArchitecture['feedForward']>([
  [FeedForward.GATED_SILU, 'gated-silu'],
  [FeedForward.RELU, 'relu'],
]);

const ROTARY_SCALINGS = new Map<number, EngineRotaryScaling['kind']>([
  [RotaryScalingKind.LINEAR, 'linear'],
  [RotaryScalingKind.LLAMA3, 'llama3'],
]);

const ELEMENT_TYPES = new Map<number, ElementType>([
  [DataType.F32, 'F32'],
  [DataType.F16, 'F16'],
  [DataType.BF16, 'BF16'],
]);

const ELEMENT_BYTES: Readonly<Record<ElementType, number>> = { F32: 4, F16: 2, BF16: 2 };

const ROLES = new Map<number, TensorRole>([
  [WireRole.TOKEN_EMBEDDING, 'token-embedding'],
  [WireRole.POSITION_EMBEDDING, 'position-embedding'],
  [WireRole.ATTENTION_NORM_WEIGHT, 'attention-norm-weight'],
  [WireRole.ATTENTION_NORM_BIAS, 'attention-norm-bias'],
  [WireRole.QUERY_WEIGHT, 'query-weight'],
  [WireRole.QUERY_BIAS, 'query-bias'],
  [WireRole.KEY_WEIGHT, 'key-weight'],
  [WireRole.KEY_BIAS, 'key-bias'],
  [WireRole.VALUE_WEIGHT, 'value-weight'],
  [WireRole.VALUE_BIAS, 'value-bias'],
  [WireRole.OUTPUT_WEIGHT, 'output-weight'],
  [WireRole.OUTPUT_BIAS, 'output-bias'],
  [WireRole.FEED_FORWARD_NORM_WEIGHT, 'feed-forward-norm-weight'],
  [WireRole.FEED_FORWARD_NORM_BIAS, 'feed-forward-norm-bias'],
  [WireRole.GATE_WEIGHT, 'gate-weight'],
  [WireRole.UP_WEIGHT, 'up-weight'],
  [WireRole.UP_BIAS, 'up-bias'],
  [WireRole.DOWN_WEIGHT, 'down-weight'],
  [WireRole.DOWN_BIAS, 'down-bias'],
  [WireRole.FINAL_NORM_WEIGHT, 'final-norm-weight'],
  [WireRole.FINAL_NORM_BIAS, 'final-norm-bias'],
  [WireRole.HEAD_WEIGHT, 'head-weight'],
  [WireRole.QUERY_NORM_WEIGHT, 'query-norm-weight'],
  [WireRole.KEY_NORM_WEIGHT, 'key-norm-weight'],
  [WireRole.GATE_BIAS, 'gate-bias'],
  [WireRole.EMBEDDING_PROJECTION_WEIGHT, 'embedding-projection-weight'],
  [WireRole.HEAD_PROJECTION_WEIGHT, 'head-projection-weight'],
]);

const PROJECTIONS = new Map<number, Projection>([
  [WireRole.QUERY_WEIGHT, 'query'],
  [WireRole.KEY_WEIGHT, 'key'],
  [WireRole.VALUE_WEIGHT, 'value'],
  [WireRole.OUTPUT_WEIGHT, 'output'],
  [WireRole.GATE_WEIGHT, 'gate'],
  [WireRole.UP_WEIGHT, 'up'],
  [WireRole.DOWN_WEIGHT, 'down'],
]);

const SITES: Readonly<Record<InputSite, WireSite>> = {
  'attention-input': WireSite.ATTENTION_INPUT,
  'attention-output': WireSite.ATTENTION_OUTPUT,
  'feed-forward-input': WireSite.FEED_FORWARD_INPUT,
  'feed-forward-hidden': WireSite.FEED_FORWARD_HIDDEN,
};

const ENGINE_SITES = new Map<number, InputSite>(Object.entries(SITES).map(([site, wire]) => [wire, site as InputSite]));

const REPAIRS = new Map<number, Repair>([
  [WireRepair.UNSPECIFIED, 'none'],
  [WireRepair.NONE, 'none'],
  [WireRepair.FIT, 'fit'],
  [WireRepair.ADMM, 'admm'],
]);

const COMPUTES = new Map<number, EngineCompute>([
  [Compute.F32, 'f32'],
  [Compute.BF16, 'bf16'],
  [Compute.F16, 'f16'],
]);

/** Callers that know of float32 only set nothing. */
const HIDDEN_STATES = new Map<number, EngineHiddenStates>([
  [HiddenStates.UNSPECIFIED, 'f32'],
  [HiddenStates.F32, 'f32'],
  [HiddenStates.BF16, 'bf16'],
]);

const SCORES = new Map<number, AllocationOptions['score']>([
  [Score.WANDA, 'wanda'],
  [Score.MAGNITUDE, 'magnitude'],
  [Score.WANDA_VARIANT, 'wanda'],
  // Rows are judged by Wanda's; what they drop is SparseGPT's to choose.
  [Score.SPARSEGPT, 'wanda'],
]);

const LAYER_QUALITIES = new Map<number, AllocationOptions['layerQuality']>([
  [LayerQuality.COSIM_FLAT, 'cosim-flat'],
  [LayerQuality.COSIM_DIM, 'cosim-dim'],
  [LayerQuality.COSIM_SAMPLE, 'cosim-sample'],
  [LayerQuality.MSE, 'mse'],
  [LayerQuality.MSE_DIM, 'mse-dim'],
  [LayerQuality.MAE, 'mae'],
  [LayerQuality.SNR, 'snr'],
  [LayerQuality.PSNR_FLAT, 'psnr-flat'],
  [LayerQuality.PSNR_DIM, 'psnr-dim'],
  [LayerQuality.PSNR_SAMPLE, 'psnr-sample'],
  [LayerQuality.PASS, 'pass'],
]);

const ROW_QUALITIES = new Map<number, AllocationOptions['rowQuality']>([
  [RowQuality.COSIM, 'cosim'],
  [RowQuality.MSE, 'mse'],
  [RowQuality.PSNR, 'psnr'],
]);

const ALLOCATIONS = new Map<number, AllocationOptions['allocation']>([
  [Allocation.TRIM, 'trim'],
  [Allocation.UNIFORM, 'uniform'],
  [Allocation.GIVEN, 'given'],
  [Allocation.OPTIMAL, 'optimal'],
]);

const BLOCK_METRICS = new Map<number, EngineWorkload['metric']>([
  [BlockMetric.UNSPECIFIED, 'none'],
  [BlockMetric.OUTLIERS, 'outliers'],
  [BlockMetric.SENSITIVITY, 'sensitivity'],
  [BlockMetric.SPECTRUM, 'spectrum'],
]);

export function toEngineArchitecture(architecture: Architecture): EngineArchitecture {
  return {
    hiddenSize: architecture.hiddenSize,
    intermediateSize: architecture.intermediateSize,
    attentionHeads: architecture.attentionHeads,
    keyValueHeads: architecture.keyValueHeads,
    headDimension: architecture.headDimension,
    vocabularySize: architecture.vocabularySize,
    maximumPositions: architecture.maximumPositions,
    normalization: translate(NORMALIZATIONS, architecture.normalization, 'architecture.normalization'),
    normalizationEpsilon: architecture.normalizationEpsilon,
    positionEncoding: translate(POSITION_ENCODINGS, architecture.positionEncoding, 'architecture.position_encoding'),
    rotaryBase: architecture.rotaryBase,
    learnedPositionOffset: architecture.learnedPositionOffset,
    feedForward: translate(FEED_FORWARDS, architecture.feedForward, 'architecture.feed_forward'),
    postNormalization: architecture.postNormalization,
    finalNormalization: architecture.finalNormalization,
    embeddingSize: architecture.embeddingSize,
    rotaryScaling: toEngineRotaryScaling(architecture.rotaryScaling),
  };
}

export function toEnginePrecision({
  compute,
  hiddenStates,
}: {
  readonly compute: Compute;
  readonly hiddenStates: HiddenStates;
}): Precision {
  return {
    compute: translate(COMPUTES, compute, 'compute'),
    hiddenStates: translate(HIDDEN_STATES, hiddenStates, 'hidden_states'),
  };
}

function toEngineRotaryScaling(scaling: RotaryScaling | undefined): EngineRotaryScaling | null {
  if (scaling === undefined) return null;
  const { kind, factor, lowFrequencyFactor, highFrequencyFactor, originalPositions } = scaling;
  const field = 'architecture.rotary_scaling.kind';
  return { kind: translate(ROTARY_SCALINGS, kind, field), factor, lowFrequencyFactor, highFrequencyFactor, originalPositions };
}

/** Role, element type and shape of a tensor; its declared bytes must be what its shape says. */
export function toEngineLayout(tensor: TensorDescriptor): EngineTensorLayout {
  const role = translate(ROLES, tensor.role, `${tensor.name}.role`);
  const elementType = translate(ELEMENT_TYPES, tensor.dataType, `${tensor.name}.data_type`);
  const expected = tensor.shape.reduce((product, size) => product * size, ELEMENT_BYTES[elementType]);
  if (expected !== tensor.bytes) {
    throw new SecateurError(
      'INVALID_REQUEST',
      `${tensor.name}: ${elementType} of shape [${tensor.shape.join(', ')}] takes ${expected} bytes, the descriptor says ${tensor.bytes}.`,
    );
  }
  return { role, elementType, shape: tensor.shape };
}

/** What the engine is asked to do where projections drop one of the workload's shares. */
export function toEngineWorkload(workload: Workload, sparsity: number): EngineWorkload {
  const layoutOf = (shard: ShardDescriptor | undefined): EngineTensorLayout[] => shard?.tensors.map(toEngineLayout) ?? [];
  return {
    embedding: layoutOf(workload.embedding),
    block: layoutOf(workload.block),
    head: layoutOf(workload.head),
    groups: workload.groups,
    samplesPerGroup: workload.samplesPerGroup,
    sequenceLength: workload.sequenceLength,
    tokens: workload.tokens,
    allocationSamples: workload.allocationSamples,
    sketches: workload.sketches,
    // A job that allocates nothing says nothing.
    allocation: workload.allocation === Allocation.UNSPECIFIED ? 'uniform' : toEngineRule(workload.score, workload.allocation, 'workload'),
    repair: toEngineRepair(workload.score, workload.repair),
    swaps: workload.swaps,
    ...toEngineQualities(workload, 'workload'),
    sparsity,
    metric: translate(BLOCK_METRICS, workload.metric, 'workload.metric'),
    maskedInStages: workload.maskedInStages,
    denseTargets: workload.denseTargets,
  };
}

export function toEngineProjection(role: WireRole): Projection {
  return translate(PROJECTIONS, role, 'projection');
}

/** The engine with the processors that its threads run on. */
export type ProductSpeeds = Pick<WireEngine, 'productSpeed' | 'bf16ProductSpeed'>;

export function toWireEngine(engine: EngineDescription, placement: Placement | undefined, speeds: ProductSpeeds): WireEngine {
  const cpus = formatCpuList(placement?.cpus.slice(0, engine.threads) ?? []);
  return { ...engine, cpus, numaNode: placement?.numaNode, ...speeds };
}

export function toWireSite(site: InputSite): WireSite {
  return SITES[site];
}

export function toEngineSite(site: WireSite): InputSite {
  return translate(ENGINE_SITES, site, 'site');
}

export function toEngineElementType(dataType: DataType): ElementType {
  return translate(ELEMENT_TYPES, dataType, 'data_type');
}

/** SparseGPT is a score, for it chooses what is dropped, and a repair. */
export function toEngineRepair(score: Score, repair: WireRepair): Repair {
  const method = translate(REPAIRS, repair, 'repair.method');
  return score === Score.SPARSEGPT ? 'sparsegpt' : method;
}

/** Those that are named; all when none is. */
export function toEngineSites(sites: readonly WireSite[]): InputSite[] {
  return sites.length === 0 ? [...ENGINE_SITES.values()] : sites.map(toEngineSite);
}

/** What uniform allocation means depends on the score. */
function toEngineRule(score: Score, allocation: Allocation, field: string, grouped = false): AllocationOptions['allocation'] {
  const rule = translate(ALLOCATIONS, allocation, `${field}.allocation`);
  if (rule !== 'uniform' || grouped) return rule;
  if (score === Score.MAGNITUDE) return 'matrix';
  return score === Score.WANDA_VARIANT ? 'score-share' : 'uniform';
}

/** Those of the published code where none are set. */
function toEngineQualities(
  { layerQuality, rowQuality }: Pick<WireAllocationOptions, 'layerQuality' | 'rowQuality'>,
  field: string,
): Pick<AllocationOptions, 'layerQuality' | 'rowQuality'> {
  return {
    layerQuality:
      layerQuality === LayerQuality.UNSPECIFIED ? 'cosim-flat' : translate(LAYER_QUALITIES, layerQuality, `${field}.layer_quality`),
    rowQuality: rowQuality === RowQuality.UNSPECIFIED ? 'cosim' : translate(ROW_QUALITIES, rowQuality, `${field}.row_quality`),
  };
}

/** `rowSparsities`: float32 little-endian, empty when none are given. */
export function toEngineAllocation(options: WireAllocationOptions, rowSparsities: Uint8Array): AllocationOptions {
  const { groupPattern } = options;
  return {
    score: translate(SCORES, options.score, 'options.score'),
    allocation: toEngineRule(options.score, options.allocation, 'options', groupPattern !== undefined),
    ...toEngineQualities(options, 'options'),
    pattern: groupPattern ?? null,
    rowSparsities: rowSparsities.byteLength === 0 ? null : rowSparsities,
    iterations: options.iterations,
    learningRates: options.learningRates,
    negativeLearningRates: options.forbidNegativeLearningRates ? [] : options.negativeLearningRates,
  };
}

const REASONS: Readonly<Record<EngineError['code'], ErrorReason>> = {
  INVALID_ARGUMENT: 'INVALID_REQUEST',
  FAILED_PRECONDITION: 'FAILED_PRECONDITION',
  RESOURCE_EXHAUSTED: 'RESOURCE_EXHAUSTED',
  CANCELLED: 'CANCELLED',
  NON_FINITE: 'NON_FINITE_RESULT',
  INTERNAL: 'INTERNAL',
};

/** What work returns; errors of the engine become those of the service. */
export function withServiceErrors<Result>(work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    throw toServiceError(error);
  }
}

/** An error of the engine as callers of the service see it; anything else stays what it is. */
export function toServiceError(error: unknown): unknown {
  if (!(error instanceof EngineError)) return error;
  const metadata: Record<string, string> = {};
  if (error.neededBytes !== undefined) metadata['neededBytes'] = String(error.neededBytes);
  if (error.availableBytes !== undefined) metadata['availableBytes'] = String(error.availableBytes);
  return new SecateurError(REASONS[error.code], error.message, { cause: error, metadata });
}

export function toEngineGroup({ index, samples, sequenceLength, tokenIds }: CalibrationGroup): EngineGroup {
  return { index, samples, sequenceLength, tokenIds: readInt32(tokenIds, `tokens of group ${index}`, samples * sequenceLength) };
}

/** Copies little-endian int32 values out of message bytes, which may be unaligned. */
function readInt32(bytes: Uint8Array, what: string, length: number): Int32Array {
  if (bytes.byteLength !== 4 * length) {
    throw new SecateurError('INVALID_REQUEST', `The ${what} take ${4 * length} bytes; ${bytes.byteLength} came.`);
  }
  const ids = new Int32Array(length);
  new Uint8Array(ids.buffer).set(bytes);
  return ids;
}

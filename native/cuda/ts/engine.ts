/**
 * The native surface, but for checksums. Nothing else in the project knows that there is an addon.
 * Every method that returns a promise computes on the engine's own threads, never on the JavaScript thread or libuv's pool.
 */

/** Element type of stored tensors, by its safetensors name. */
export type ElementType = 'F32' | 'F16' | 'BF16';

/** What products of activations with weights, and of attention, take in; their sums, and everything else, are float32. */
export type Compute = 'f32' | 'bf16' | 'f16';

/** What hidden states are kept in between blocks; bf16 is rounded to the nearest and takes half the memory. */
export type HiddenStates = 'f32' | 'bf16';

/** The numbers of a session. */
export interface Precision {
  readonly compute: Compute;
  readonly hiddenStates: HiddenStates;
}

/** What a block computes, apart from its tensors. Same meaning as secateur.v1.Architecture. */
export interface EngineArchitecture {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly attentionHeads: number;
  readonly keyValueHeads: number;
  readonly headDimension: number;
  readonly vocabularySize: number;
  readonly maximumPositions: number;
  readonly normalization: 'rms' | 'layer';
  readonly normalizationEpsilon: number;
  readonly positionEncoding: 'rotary' | 'learned';
  /** 0 when positions are learned. */
  readonly rotaryBase: number;
  readonly learnedPositionOffset: number;
  readonly feedForward: 'gated-silu' | 'relu';
  /** Each half of a block is normalised after its residual is added, not before it begins. */
  readonly postNormalization: boolean;
  /** The head begins with a normalisation. */
  readonly finalNormalization: boolean;
  /** Width of the token embedding where projections lead from it and to the head; 0 where none do. */
  readonly embeddingSize: number;
  /** null when rotary frequencies are used as they are. */
  readonly rotaryScaling: EngineRotaryScaling | null;
}

/** Same meaning as secateur.v1.RotaryScaling. */
export interface EngineRotaryScaling {
  readonly kind: 'linear' | 'llama3';
  readonly factor: number;
  readonly lowFrequencyFactor: number;
  readonly highFrequencyFactor: number;
  readonly originalPositions: number;
}

/** The seven kinds of projections. OPT: fc1 is `up`, fc2 is `down`. */
export type Projection = 'query' | 'key' | 'value' | 'output' | 'gate' | 'up' | 'down';

/** What a tensor does in its shard; a bias that is absent is not added. */
export type TensorRole =
  | 'token-embedding'
  | 'position-embedding'
  | 'attention-norm-weight'
  | 'attention-norm-bias'
  | `${Projection}-weight`
  | `${Projection}-bias`
  | 'feed-forward-norm-weight'
  | 'feed-forward-norm-bias'
  | 'final-norm-weight'
  | 'final-norm-bias'
  | 'head-weight'
  | 'query-norm-weight'
  | 'key-norm-weight'
  | 'embedding-projection-weight'
  | 'head-projection-weight';

/** What a tensor of a shard is, without its values. */
export interface EngineTensorLayout {
  readonly role: TensorRole;
  readonly elementType: ElementType;
  readonly shape: readonly number[];
}

/** A tensor as stored: little-endian, row-major. The bytes are only read during the call they are given to. */
export interface EngineTensor extends EngineTensorLayout {
  readonly bytes: Uint8Array;
}

/** How the kept weights of a projection make up for the dropped ones. */
export type Repair = 'none' | 'fit' | 'admm' | 'sparsegpt';

/** What a job will ask of one session, known before anything is loaded. */
export interface EngineWorkload {
  readonly embedding: readonly EngineTensorLayout[];
  /** The block that takes the most. */
  readonly block: readonly EngineTensorLayout[];
  /** Empty where no loss is measured. */
  readonly head: readonly EngineTensorLayout[];
  /** Calibration groups whose hidden states the session will keep; above 0. */
  readonly groups: number;
  readonly samplesPerGroup: number;
  readonly sequenceLength: number;
  /** Tokens of those groups together where they differ in length; 0 where all are as large as the largest. */
  readonly tokens: number;
  /** Quality inputs of the whole job, which an allocation reads; 0 where nothing is allocated. */
  readonly allocationSamples: number;
  /** As collectStatistics takes them. */
  readonly sketches: number;
  readonly allocation: AllocationOptions['allocation'];
  /** How allocated projections are repaired. */
  readonly repair: Repair;
  /** Masks are bettered by swaps. */
  readonly swaps: boolean;
  readonly layerQuality: AllocationOptions['layerQuality'];
  readonly rowQuality: AllocationOptions['rowQuality'];
  /** Share of the weights that are dropped. */
  readonly sparsity: number;
  /**
   * What is measured of every dense block before anything is pruned: `outliers` of its scores, after a pass of the hidden states through the
   * dense model, the `spectrum` of its weights, for which only the block is used, or its `sensitivity` to pruning one projection.
   */
  readonly metric: 'none' | 'outliers' | 'spectrum' | 'sensitivity';
  /** Projections are masked while statistics of those after them are still to be collected. */
  readonly maskedInStages: boolean;
  /** Weights are fitted to what brings the model back to the dense one: the session keeps its weights and hidden states too. */
  readonly denseTargets: boolean;
}

export interface MemoryItem {
  readonly purpose: string;
  readonly bytes: number;
}

/** The most memory a session takes. */
export interface EngineMemoryPlan {
  /** The step that takes the most: `embed`, `collect`, `budget`, `allocate`, `repair`, `propagate` or `measure`. */
  readonly step: string;
  /** Held then, counted by the budget. */
  readonly items: readonly MemoryItem[];
  /** Memory of the host beside that of a GPU: pinned, or of what is computed there; not counted by the budget. */
  readonly pinned: readonly MemoryItem[];
}

/** A place in a block whose values feed one or more projections: (query, key, value), (output), (gate, up), (down). */
export type InputSite = 'attention-input' | 'attention-output' | 'feed-forward-input' | 'feed-forward-hidden';

/** Tokens of one calibration group. */
export interface EngineGroup {
  readonly index: number;
  readonly samples: number;
  readonly sequenceLength: number;
  /** [samples, sequenceLength] */
  readonly tokenIds: Int32Array;
}

/** Tokens of a sample: those at the positions from `first` on and before `end`. */
export interface TokenRange {
  readonly first: number;
  readonly end: number;
}

/** Statistics of one input site over one calibration group. */
export interface SiteStatistics {
  readonly site: InputSite;
  /** [columns] over all tokens of the group, added in sample order. */
  readonly sumsOfSquares: Float64Array;
  /** What rows are judged on. [samples, columns]: the input of the last token of each sample; or its sketches [samples, sketches, columns]. */
  readonly qualityInputs: Float32Array;
}

/** One timed part of a call. Phases of one name may occur several times and may overlap when threads work side by side. */
export interface PhaseTiming {
  /** `gemm`, `attention`, `normalization`, `activation`, `statistics`, `convert`, `scores`, `sort`, `curves`, `search`, `mask`, `gram`, `factor`, `swap`, `repair`, `embed`, `loss`, `spectrum`, `copy`. */
  readonly phase: string;
  /** Nanoseconds from the start of the call to the first start of this phase. */
  readonly startNanoseconds: number;
  /** Nanoseconds this phase took, summed over threads and divided by the number of threads that worked. */
  readonly durationNanoseconds: number;
  /** Floating-point operations done. */
  readonly flops: number;
  /** Bytes read and written, as the algorithm needs them (not measured). */
  readonly bytes: number;
}

/** Every computing call answers with its timings. `queuedNanoseconds`: time it waited for other calls. */
export interface Timed<Value> {
  readonly value: Value;
  readonly timings: readonly PhaseTiming[];
  readonly queuedNanoseconds: number;
}

export interface CallOptions {
  /** Aborting makes the call fail with an EngineError `CANCELLED` within milliseconds. */
  readonly signal?: AbortSignal;
}

interface LoadOptions extends CallOptions {
  /** Of a block: keys that each query sees, its own the last; 0, or left out, for all. */
  readonly attentionWindow?: number;
}

interface CollectOptions extends CallOptions {
  /** Random-sign sums over the tokens of each sample, up to 8; 0, or left out, for the inputs of the last tokens. */
  readonly sketches?: number;
}

export interface AllocationOptions {
  readonly score: 'wanda' | 'magnitude';
  /**
   * `optimal`: the split with the least squared error; `given`: the row sparsities that are given; `matrix`: the lowest scores of the
   * whole matrix; `score-share`: from every row the lowest scores that make the same share of the row's sum.
   */
  readonly allocation: 'trim' | 'uniform' | 'optimal' | 'given' | 'matrix' | 'score-share';
  /** By what the search tells which sparsities are best; others than `cosim-flat` only with `trim`. */
  readonly layerQuality:
    'cosim-flat' | 'cosim-dim' | 'cosim-sample' | 'mse' | 'mse-dim' | 'mae' | 'snr' | 'psnr-flat' | 'psnr-dim' | 'psnr-sample' | 'pass';
  /** By what rows get more or less sparsity; others than `cosim` only with `trim`. */
  readonly rowQuality: 'cosim' | 'mse' | 'psnr';
  /** Drops so many of every group of neighbouring inputs; only with `uniform`. */
  readonly pattern: { readonly dropped: number; readonly group: number } | null;
  /** float32 [rows], with `given`. Little-endian bytes, any alignment. */
  readonly rowSparsities: Uint8Array | null;
  /** Steps per learning rate, at least 1. */
  readonly iterations: number;
  readonly learningRates: readonly number[];
  /** Tried when no other rate beats uniform; empty forbids them. */
  readonly negativeLearningRates: readonly number[];
}

/** Statistics of a projection's input, reduced over all groups. */
export interface ReducedStatistics {
  /** Of the quality inputs. */
  readonly samples: number;
  readonly columns: number;
  /** float32 [columns]: sum of squares over all tokens / calibration samples. Little-endian bytes, any alignment. */
  readonly meanSquares: Uint8Array;
  /** float32 [samples, columns]. Little-endian bytes, any alignment. */
  readonly qualityInputs: Uint8Array;
}

/** The mean squares of what a projection takes in. */
export interface ProjectionInputSquares {
  readonly projection: Projection;
  /** float32 [columns]. Little-endian bytes, any alignment. */
  readonly meanSquares: Uint8Array;
}

/** How many scores of a block stand out. */
export interface OutlierCount {
  readonly weights: number;
  readonly outliers: number;
  readonly meanScore: number;
}

/** Sites whose inputs are added to Gram matrices. */
export interface GramSites {
  readonly sites: readonly InputSite[];
  /** Every fourth sample of a group, from the second on, is held out: those have sums of their own. The same for all groups of a block. */
  readonly holdOut: boolean;
}

/** How far the output of a block moves when projections are pruned one at a time, over all tokens of a group. */
export interface BlockSensitivity {
  /** Squared norm of the output of the block as it is. */
  readonly outputEnergy: number;
  /** Of each projection: squared norm of what pruning it alone changes in that output. */
  readonly errors: Float64Array;
}

/** What some groups add to the Gram matrix of an input site. */
export interface GramPart {
  readonly groups: Uint32Array;
  /** For `reduceGram` of an engine of the same version. */
  readonly sums: Uint8Array;
  /** Of the samples that are held out, which the sums are without; empty where none are. */
  readonly heldOut: Uint8Array;
  /** Of the drift of the inputs, over all samples; empty in a session without dense targets. */
  readonly drift: Uint8Array;
}

/** What a repair works from. */
export interface RepairInput {
  /** Calibration samples behind the Gram matrix. */
  readonly samples: number;
  /** float32 [columns, columns], at an address that is a multiple of 4. */
  readonly gram: Uint8Array;
  /** In the same way, with swaps: of the samples that are held out, which the other is without; else null. */
  readonly heldOutGram: Uint8Array | null;
  /**
   * How far the pruned model is from the dense one at this input: float32 [columns, columns] Σ (x' - x)xᵀ and, where the output is added to
   * hidden states r, [rows, columns] Σ (r' - r)xᵀ. null where the target is the dense projection's output for the inputs it gets.
   */
  readonly drift: Uint8Array | null;
  /** What is dropped, as in AllocatedRows; `admm` and `sparsegpt` read only how many weights each row drops. */
  readonly mask: Uint8Array;
  /** Type of the repaired weights. */
  readonly elementType: ElementType;
}

export interface RepairOptions {
  readonly method: Repair;
  /** Share of the mean diagonal that is added to the diagonal of the Gram matrix; above 0. */
  readonly damping: number;
  /** Steps of `fit` and `admm`. */
  readonly iterations: number;
  /** `admm`, `sparsegpt`: the lowest are dropped whatever their row, as many as the rows drop together. */
  readonly acrossRows: boolean;
  /** `none`, `fit`: before anything else, at most so many weights of each row come back for kept ones. */
  readonly swaps: number;
}

export interface RepairedRows {
  /** [rows, columns], little-endian: kept weights as they are now, dropped ones +0. */
  readonly weights: Uint8Array;
  readonly mask: Uint8Array;
  /** [rows] */
  readonly droppedPerRow: Int32Array;
  readonly dropped: number;
  /** Of all rows. */
  readonly swaps: number;
  /** Squared error of the output over all calibration tokens, of the squared output: with the given mask alone, swapped, and repaired. */
  readonly errorBeforeSwaps: number;
  readonly errorBefore: number;
  readonly errorAfter: number;
  /** Share of the mean diagonal that was added; more than was asked for where the Gram matrix needed it. */
  readonly damping: number;
}

/** One step of the search, in the order tried. Step 0 of rate 0 is the uniform baseline. */
export interface SearchStep {
  readonly learningRate: number;
  readonly step: number;
  readonly quality: number;
}

export interface AllocatedRows {
  /** Qualities are in the metric of the layer; bigger is better. Infinity with `snr` where nearly nothing is lost. */
  readonly baselineQuality: number;
  readonly bestQuality: number;
  /** null when uniform won, or nothing was searched. */
  readonly learningRate: number | null;
  /** null when uniform won, or nothing was searched. */
  readonly bestStep: number | null;
  /** Of the row cosines, whatever metric steers the search. */
  readonly varianceBefore: number;
  readonly varianceAfter: number;
  readonly dropped: number;
  /** [rows] */
  readonly rowSparsities: Float32Array;
  /** [rows] */
  readonly droppedPerRow: Int32Array;
  /** Rows bit-packed, least significant bit first, 1 = dropped, each row padded to bytes. */
  readonly mask: Uint8Array;
  readonly steps: readonly SearchStep[];
}

export interface EngineDescription {
  readonly backend: 'cpu' | 'cuda';
  /** Why this backend was chosen, for people. */
  readonly reason: string;
  /** `avx512`, `avx2` or `generic`; of a GPU, its name and compute capability. */
  readonly instructionSet: string;
  /** Matrix library with version. */
  readonly gemm: string;
  readonly threads: number;
  readonly version: string;
}

/** Error of the engine; `code` decides what callers do. */
export class EngineError extends Error {
  override readonly name = 'EngineError';
  constructor(
    readonly code: 'INVALID_ARGUMENT' | 'FAILED_PRECONDITION' | 'RESOURCE_EXHAUSTED' | 'CANCELLED' | 'NON_FINITE' | 'INTERNAL',
    message: string,
    /** Set for RESOURCE_EXHAUSTED. */
    readonly neededBytes?: number,
    /** Set for RESOURCE_EXHAUSTED. */
    readonly availableBytes?: number,
  ) {
    super(message);
  }
}

/**
 * One job's weights and hidden states. Calls run one after the other in the order made.
 * Shards and groups are named by the caller; using one that is not there is FAILED_PRECONDITION, releasing one does nothing.
 */
export interface EngineSession {
  /** Converts a shard's tensors to what the backend computes with. Checks roles and shapes against the architecture. */
  loadShard(shardId: string, tensors: readonly EngineTensor[], options?: LoadOptions): Promise<Timed<void>>;
  releaseShard(shardId: string): Promise<void>;
  /** Makes hidden states [samples, sequenceLength, hidden] of a group from token ids (int32 [samples, sequenceLength]); replaces earlier ones. */
  embed(shardId: string, group: EngineGroup, options?: CallOptions): Promise<Timed<void>>;
  /**
   * Runs a block on a group as far as the last of some sites, leaving its hidden states as they are. The statistics come in network order.
   * NaN or infinity in them is NON_FINITE.
   */
  collectStatistics(
    shardId: string,
    groupIndex: number,
    sites: readonly InputSite[],
    options?: CollectOptions,
  ): Promise<Timed<readonly SiteStatistics[]>>;
  /** Replaces the hidden states of a group by the block's output. */
  propagate(shardId: string, groupIndex: number, options?: CallOptions): Promise<Timed<void>>;
  /** The same for the hidden states of the dense model, through the block as it was loaded; in a session with dense targets. */
  propagateDense(shardId: string, groupIndex: number, options?: CallOptions): Promise<Timed<void>>;
  /**
   * Mean negative log-likelihood of the tokens in the range of each sample of a group (it keeps its token ids from embed); of tokens
   * 1 … T-1 where no ranges are given.
   */
  measureLoss(shardId: string, groupIndex: number, ranges?: readonly TokenRange[], options?: CallOptions): Promise<Timed<Float64Array>>;
  /** Logits float32 [vocabulary] of the last token of the first sample of a group. */
  lastLogits(shardId: string, groupIndex: number, options?: CallOptions): Promise<Timed<Float32Array>>;
  /** Scores, order, quality curves, search and mask of one projection of a loaded block (docs/algorithms.md). */
  allocateRows(
    shardId: string,
    projection: Projection,
    targetSparsity: number,
    statistics: ReducedStatistics,
    allocation: AllocationOptions,
    options?: CallOptions,
  ): Promise<Timed<AllocatedRows>>;
  /** Of the projections of a loaded block together: scores |W| · √meanSquares above `threshold` times their mean. */
  countOutliers(
    shardId: string,
    projections: readonly ProjectionInputSquares[],
    threshold: number,
    options?: CallOptions,
  ): Promise<Timed<OutlierCount>>;
  /**
   * Each projection of a loaded dense block in turn loses its lowest scores |W| · √meanSquares; one answer per group. Weights and hidden
   * states stay as they are.
   */
  measureSensitivity(
    shardId: string,
    groupIndices: readonly number[],
    projections: readonly ProjectionInputSquares[],
    sparsity: number,
    options?: CallOptions,
  ): Promise<Timed<readonly BlockSensitivity[]>>;
  /** [min(rows, columns)]: eigenvalues of W·Wᵀ, or of WᵀW where that is smaller, ascending. */
  eigenvalues(shardId: string, projection: Projection, options?: CallOptions): Promise<Timed<Float64Array>>;
  /** Sets dropped weights of a loaded block to +0. */
  applyMask(shardId: string, projection: Projection, mask: Uint8Array, options?: CallOptions): Promise<Timed<void>>;
  /** As collectStatistics; the inputs of some of the sites are added to their Gram matrices too, unless those of the group were added already. */
  collectWithGram(
    shardId: string,
    groupIndex: number,
    sites: readonly InputSite[],
    grams: GramSites,
    options?: CollectOptions,
  ): Promise<Timed<readonly SiteStatistics[]>>;
  /** Hands over what was added to the Gram matrix of a site since the last time. */
  takeGramSums(shardId: string, site: InputSite, options?: CallOptions): Promise<Timed<GramPart>>;
  /**
   * The matrix float32 that sums add up to, the same in whatever order: the Gram matrix [columns, columns] where `driftRows` is 0, else the
   * drift [driftRows, columns].
   */
  reduceGram(columns: number, driftRows: number, sums: readonly Uint8Array[], options?: CallOptions): Promise<Timed<Float32Array>>;
  /** Kept weights of one projection of a loaded block that make up for the dropped ones; the loaded block stays as it is. */
  repairRows(
    shardId: string,
    projection: Projection,
    input: RepairInput,
    repair: RepairOptions,
    options?: CallOptions,
  ): Promise<Timed<RepairedRows>>;
  /** The values of a projection of a loaded block become those stored, little-endian. */
  replaceWeights(
    shardId: string,
    projection: Projection,
    elementType: ElementType,
    bytes: Uint8Array,
    options?: CallOptions,
  ): Promise<Timed<void>>;
  releaseGroup(groupIndex: number): Promise<void>;
  /**
   * The hidden states of a group as they are kept between blocks, little-endian [samples, sequence length, hidden size] of their type: those of
   * the pruned model and then, in sessions with dense targets, those of the dense one.
   */
  saveHiddenStates(groupIndex: number, options?: CallOptions): Promise<Timed<Uint8Array>>;
  /** A group as a session of the same architecture, precision and targets saved it, in place of the one that had its index. */
  restoreHiddenStates(group: EngineGroup, saved: Uint8Array, options?: CallOptions): Promise<Timed<void>>;
  /** Frees everything; calls still running are cancelled first. */
  close(): Promise<void>;
}

export interface EngineOptions {
  /** `auto`: cuda when it works, else cpu. */
  readonly backend: 'auto' | 'cpu' | 'cuda';
  /** Threads that compute; 0 = one per processor of the placement, or that this process may use. Results never depend on it. */
  readonly threads: number;
  /** Bytes all sessions together may hold; exceeding it is RESOURCE_EXHAUSTED. */
  readonly memoryBudgetBytes: number;
  /** Without it, the system chooses. */
  readonly placement?: Placement | undefined;
}

/** Where the engine's threads run. Linux only; elsewhere it is FAILED_PRECONDITION, as is what the system refuses. */
export interface Placement {
  /** Processors, one per thread in their order. A backend with fewer threads takes the first. */
  readonly cpus: readonly number[];
  /** NUMA node whose memory the threads prefer; without it, memory is near the processor that touches it first. */
  readonly numaNode?: number | undefined;
}

export interface Engine {
  readonly description: EngineDescription;
  /** Bytes held now. */
  memoryUsedBytes(): number;
  /** Tells the most memory a session will take. Throws INVALID_ARGUMENT when the workload contradicts the architecture. */
  planSession(architecture: EngineArchitecture, precision: Precision, workload: EngineWorkload): EngineMemoryPlan;
  /**
   * Throws FAILED_PRECONDITION when the device has no products of that kind, and RESOURCE_EXHAUSTED when a workload is given whose plan
   * does not fit what the budget has left.
   */
  openSession(architecture: EngineArchitecture, precision: Precision, workload?: EngineWorkload): EngineSession;
  /**
   * Floating-point operations a second of dense products on all threads, measured in some tens of milliseconds; 0 where the device has none of
   * that kind, or nothing is known.
   */
  measureProductSpeed(precision: Precision, options?: CallOptions): Promise<Timed<number>>;
  /** The allocation on a weight matrix given directly, without a session: float32 [rows, columns]. For tests and benchmarks. */
  allocateMatrix(
    weights: Float32Array,
    rows: number,
    columns: number,
    targetSparsity: number,
    statistics: ReducedStatistics,
    allocation: AllocationOptions,
    options?: CallOptions,
  ): Promise<Timed<AllocatedRows>>;
  close(): Promise<void>;
}

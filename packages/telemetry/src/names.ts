/** The one registry of names in traces and metrics. docs/reference/telemetry.md is made from it by scripts/write-reference.mjs. */

export interface RegisteredName {
  readonly name: string;
  readonly description: string;
}

export const SPANS = {
  JOB: { name: 'secateur.job', description: 'One attempt of a job. Root of the job trace.' },
  PLAN: { name: 'secateur.plan', description: 'Checks the model and the data and cuts the model into shards.' },
  LAYER_SUMMARY: { name: 'secateur.layer.summary', description: 'One block in the job trace, linked to the trace of that block.' },
  LAYER: {
    name: 'secateur.layer',
    description: 'One block being pruned. Root of a trace of its own, linked to its summary in the job trace and to the block before.',
  },
  EMBED: { name: 'secateur.embed', description: 'Makes the hidden states of calibration groups on one node from their tokens.' },
  FETCH: { name: 'secateur.fetch', description: 'A node pulls bytes: a shard or reduced statistics.' },
  COLLECT: { name: 'secateur.collect', description: 'One node runs a block, or its first part, on its groups and sends their statistics.' },
  ALLOCATE: { name: 'secateur.allocate', description: 'The sparsity of one projection is split over its rows.' },
  APPLY: { name: 'secateur.apply', description: 'A node pulls the masks of a block and sets the dropped weights to zero.' },
  PROPAGATE: { name: 'secateur.propagate', description: 'One node runs the pruned block on its groups to get the next hidden states.' },
  WRITE: { name: 'secateur.write', description: 'A projection is masked and written, or the finished checkpoint is made.' },
  COMMIT: { name: 'secateur.commit', description: 'What was written of a block is made durable and journaled.' },
  MEASURE: { name: 'secateur.measure', description: 'One node runs the head on its groups and measures their loss.' },
  BUDGET: {
    name: 'secateur.budget',
    description: 'The sparsity of the model is split over its layers by what is measured of the dense model.',
  },
  COUNT_OUTLIERS: {
    name: 'secateur.count_outliers',
    description: 'One node counts the scores of a dense block that are far above their mean.',
  },
  MEASURE_SENSITIVITY: {
    name: 'secateur.measure_sensitivity',
    description: 'One node prunes the projections of a dense block one at a time and measures what its output loses.',
  },
  FIND_EIGENVALUES: { name: 'secateur.find_eigenvalues', description: 'One node finds the eigenvalues of the weights of a block.' },
  MOVE: {
    name: 'secateur.move',
    description: 'Hidden states of calibration groups move to a node that is sooner done with them, or from one that leaves.',
  },
  RESTORE: { name: 'secateur.restore', description: 'A node goes on with hidden states that were kept with the unfinished output.' },
  SNAPSHOT: { name: 'secateur.snapshot', description: 'Hidden states of all groups are kept with the unfinished output.' },
  REPLAY: { name: 'secateur.replay', description: 'Hidden states that a lost node held are recomputed through one pruned block.' },
} as const satisfies Record<string, RegisteredName>;

/** Phases of the engine, spans below the call that ran them. */
export const ENGINE_SPANS = {
  GEMM: { name: 'engine.gemm', description: 'Matrix products of projections.' },
  ATTENTION: { name: 'engine.attention', description: 'Attention between positions.' },
  NORMALIZATION: { name: 'engine.normalization', description: 'RMS or layer normalisation.' },
  ACTIVATION: { name: 'engine.activation', description: 'Activation of the feed-forward part.' },
  STATISTICS: { name: 'engine.statistics', description: 'Sums of squares and quality inputs of the projections.' },
  CONVERT: { name: 'engine.convert', description: 'Conversion between stored and computed element types.' },
  SCORES: { name: 'engine.scores', description: 'Scores of the weights.' },
  SORT: { name: 'engine.sort', description: 'Weights of each row sorted by score.' },
  CURVES: { name: 'engine.curves', description: 'Quality of each row at every sparsity.' },
  SEARCH: { name: 'engine.search', description: 'The search over learning rates, or for the optimal split.' },
  MASK: { name: 'engine.mask', description: 'Masks packed or applied.' },
  EMBED: { name: 'engine.embed', description: 'Token and position embedding.' },
  LOSS: { name: 'engine.loss', description: 'Logits and cross-entropy.' },
  COPY: { name: 'engine.copy', description: 'Hidden states copied out of the engine or into it.' },
  SPECTRUM: { name: 'engine.spectrum', description: 'Eigenvalues of weights.' },
} as const satisfies Record<string, RegisteredName>;

export const ATTRIBUTES = {
  JOB_ID: { name: 'secateur.job.id', description: 'Id of the job.' },
  TRACE_RECORD: {
    name: 'secateur.trace.record',
    description: 'True on the root span of a trace that is to be recorded even when nothing is exported.',
  },
  LAYER_INDEX: { name: 'secateur.layer.index', description: 'Block of the model, from 0.' },
  NODE: { name: 'secateur.node', description: 'Name of the kernel node that does the work.' },
  SHARD_ID: { name: 'secateur.shard.id', description: 'Shard that is loaded, or `/masks` behind the block whose masks are.' },
  PROJECTION: { name: 'secateur.projection', description: 'Name of the projection in the checkpoint.' },
  GROUPS: { name: 'secateur.groups', description: 'Number of calibration groups.' },
  BYTES: { name: 'secateur.bytes', description: 'Bytes moved over the network.' },
  PEER: { name: 'secateur.peer', description: 'HOST:PORT of the kernel node that a shard, or masks, are pulled from.' },
  PEER_BYTES: { name: 'secateur.peer.bytes', description: 'Bytes that came from that node.' },
  REASON: { name: 'secateur.reason', description: 'Why something was given up.' },
  LEARNING_RATE: { name: 'secateur.learning_rate', description: 'Learning rate of a search.' },
  STEP: { name: 'secateur.step', description: 'Step of a search, from 0.' },
  QUALITY: { name: 'secateur.quality', description: 'Quality of the projection with the sparsities of that step.' },
  CANCELLED: { name: 'secateur.cancelled', description: 'True when the work was stopped on purpose, which is no error.' },
  ENGINE_FLOPS: { name: 'secateur.engine.flops', description: 'Floating-point operations of a phase.' },
  ENGINE_BYTES: { name: 'secateur.engine.bytes', description: 'Bytes a phase reads and writes as the algorithm needs them.' },
  ENGINE_DEVICE_TIME: {
    name: 'secateur.engine.device_time_ns',
    description: 'Nanoseconds of computing: summed over threads and divided by the number of threads that worked.',
  },
} as const satisfies Record<string, RegisteredName>;

export const EVENTS = {
  LEARNING_RATE_TRIED: {
    name: 'secateur.learning_rate_tried',
    description: 'A learning rate was tried; with the best quality it reached and the step that did.',
  },
  PEER_GIVEN_UP: {
    name: 'secateur.peer_given_up',
    description: 'The rest of a shard, or of masks, is pulled from the orchestrator instead of from another kernel node; with the reason.',
  },
} as const satisfies Record<string, RegisteredName>;

export interface RegisteredMetric extends RegisteredName {
  /** As UCUM writes it. */
  readonly unit: string;
  /** What it is split by. */
  readonly attributes: readonly string[];
}

/** Read when somebody asks for metrics. */
export const GAUGES = {
  JOBS: { name: 'secateur.jobs', unit: '{job}', attributes: ['secateur.job.state'], description: 'Jobs that are known, by their state.' },
  PENDING_LAYERS: {
    name: 'secateur.layers.pending',
    unit: '{layer}',
    attributes: [],
    description: 'Blocks left to do of all jobs that run or wait: 32 of one that was never planned, all of an evaluation until it ends.',
  },
  NODES: {
    name: 'secateur.nodes',
    unit: '{node}',
    attributes: ['secateur.node.healthy'],
    description: 'Kernel nodes that the orchestrator was told of, and whether they are healthy.',
  },
  MEMORY_USED: {
    name: 'secateur.node.memory.used',
    unit: 'By',
    attributes: [],
    description: 'Memory that all sessions of a kernel node hold.',
  },
  MEMORY_BUDGET: { name: 'secateur.node.memory.budget', unit: 'By', attributes: [], description: 'Memory they may hold.' },
  SESSIONS: { name: 'secateur.node.sessions', unit: '{session}', attributes: [], description: 'Sessions that are open on a kernel node.' },
} as const satisfies Record<string, RegisteredMetric>;

export const COUNTERS = {
  TOKENS: {
    name: 'secateur.tokens',
    unit: '{token}',
    attributes: [],
    description: 'Calibration tokens that blocks were pruned with, once per block.',
  },
  SENT: { name: 'secateur.fetch.sent', unit: 'By', attributes: [], description: 'Bytes sent by TensorService.' },
  RECEIVED: {
    name: 'secateur.shard.received',
    unit: 'By',
    attributes: ['secateur.source'],
    description:
      'Bytes of shards and masks that a kernel node got: from `volume`, which is what it shares with the orchestrator, `peer` or `orchestrator`.',
  },
  DEVICE_TIME: {
    name: 'secateur.engine.device_time',
    unit: 's',
    attributes: ['secateur.engine.phase'],
    description: 'Seconds of computing by phase: summed over threads and divided by the number of threads that worked.',
  },
} as const satisfies Record<string, RegisteredMetric>;

export interface RegisteredHistogram extends RegisteredMetric {
  /** Upper bounds of its buckets. */
  readonly bounds: readonly number[];
}

const CALL_SECONDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800];

export const HISTOGRAMS = {
  LAYER_DURATION: {
    name: 'secateur.layer.duration',
    unit: 's',
    attributes: [],
    description: 'From the beginning of a block until it is pruned and durable.',
    bounds: [0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800],
  },
  RPC_SERVER_DURATION: {
    name: 'rpc.server.call.duration',
    unit: 's',
    attributes: ['rpc.method', 'rpc.response.status_code'],
    description: 'gRPC calls that were served.',
    bounds: CALL_SECONDS,
  },
  RPC_CLIENT_DURATION: {
    name: 'rpc.client.call.duration',
    unit: 's',
    attributes: ['rpc.method', 'rpc.response.status_code'],
    description: 'gRPC calls that were made.',
    bounds: CALL_SECONDS,
  },
  HTTP_SERVER_DURATION: {
    name: 'http.server.request.duration',
    unit: 's',
    attributes: ['http.request.method', 'http.route', 'http.response.status_code'],
    description: 'HTTP requests to methods that were served.',
    bounds: CALL_SECONDS,
  },
} as const satisfies Record<string, RegisteredHistogram>;

type Names<Table extends Record<string, RegisteredName>> = { readonly [Key in keyof Table]: Table[Key]['name'] };

function namesOf<Table extends Record<string, RegisteredName>>(table: Table): Names<Table> {
  return Object.fromEntries(Object.entries(table).map(([key, { name }]) => [key, name])) as Names<Table>;
}

export const SpanName = namesOf(SPANS);
export type SpanName = (typeof SpanName)[keyof typeof SpanName];

export const Attribute = namesOf(ATTRIBUTES);
export type Attribute = (typeof Attribute)[keyof typeof Attribute];

export const EventName = namesOf(EVENTS);
export type EventName = (typeof EventName)[keyof typeof EventName];

export type Gauge = keyof typeof GAUGES;
export type Counter = keyof typeof COUNTERS;
export type Histogram = keyof typeof HISTOGRAMS;

import { randomUUID } from 'node:crypto';
import { SecateurError, type ErrorReason } from '@secateur/core';
import type {
  AllocatedRows,
  AllocateRowsRequest,
  CollectStatisticsResponse,
  CountOutliersResponse,
  GramMatrix,
  GramSums,
  HiddenStream,
  MaskDescriptor,
  MeasuredTokens,
  MeasureSensitivityResponse,
  PeerResource,
  ProjectionInputSquares,
  SavedGroup,
  ShardPeer,
} from '@secateur/proto/kernel_service';
import { HiddenStates, type Architecture, type Compute, type ShardDescriptor, type TensorRole } from '@secateur/proto/model';
import type { MemoryPlan, Workload } from '@secateur/proto/plan';
import type { CalibrationGroup, InputSite } from '@secateur/proto/statistics';
import { fetchResource } from '@secateur/rpc';
import { WRONG_NODE, type PoolNode } from './node-pool.js';
import type { ReceivedContent, ShardSources } from './shard-sources.js';

const CONTROL_TIMEOUT_MS = 30_000;
/** Upper bound of one step on one node; a dead or frozen node is noticed by keepalive long before. */
const STEP_TIMEOUT_MS = 6 * 3_600_000;
/** Token ids that a call embeds, and those of one group more: far below the limit of messages. */
const EMBED_BYTES = 1 << 20;
/** Of hidden states. */
const FETCH_OPTIONS = { timeoutMs: 3_600_000, idleTimeoutMs: 60_000, reconnectTimeoutMs: 2_000 };
/** Nodes close sessions they hear nothing of. */
const HEARTBEAT_EVERY_MS = 20_000;

export interface SessionContext {
  readonly jobId: string;
  /** Number of the lease by which this process runs the job. */
  readonly lease: number;
  readonly architecture: Architecture;
  /** Where nodes pull this job's resources. */
  readonly tensorEndpoint: string;
  readonly compute: Compute;
  readonly hiddenStates: HiddenStates;
  /** What the node will be asked to do, for its plan of memory. */
  readonly workload: Workload;
}

/** Where the sessions of one crew pull what all of them need. Masks of a block are pulled while the next one is on its way. */
export type SessionSources = Readonly<Record<'shards' | 'masks', ShardSources<NodeSession>>>;

/** Inputs that are added to Gram matrices. */
export interface GramSites {
  readonly sites: readonly InputSite[];
  /** Some samples are held out: they have matrices of their own. */
  readonly holdOut: boolean;
}

/** One job's session on one node: the calls of KernelService with their deadlines, and which shards the node holds. */
export class NodeSession {
  private readonly held = new Set<string>();
  private prefetched: string | undefined;
  private readonly heartbeat: NodeJS.Timeout;

  private constructor(
    readonly node: PoolNode,
    private readonly sessionId: string,
    private readonly context: SessionContext,
    private readonly sources: SessionSources,
    private readonly plan: MemoryPlan | undefined,
  ) {
    node.retain();
    this.heartbeat = setInterval(() => {
      // Of a node that has restarted the next call says so.
      node.kernel.openSession({ sessionId, ...context, renewOnly: true }, { timeoutMs: CONTROL_TIMEOUT_MS }).catch(() => undefined);
    }, HEARTBEAT_EVERY_MS);
    this.heartbeat.unref();
  }

  static async open(node: PoolNode, context: SessionContext, sources: SessionSources, signal: AbortSignal): Promise<NodeSession> {
    const sessionId = `${context.jobId}.${randomUUID()}`;
    const { plan } = await node.kernel
      .openSession({ sessionId, ...context }, { timeoutMs: CONTROL_TIMEOUT_MS, signal })
      .catch((error: unknown) => {
        throw named(node, error);
      });
    return new NodeSession(node, sessionId, context, sources, plan);
  }

  /** Resident memory the node's process is planned to take at most. */
  get plannedResidentBytes(): number {
    return this.plan?.residentBytes ?? 0;
  }

  /** Of float32 products, as the node measured it; 0 when it is not known. */
  get productSpeed(): number {
    return this.node.description?.engine?.productSpeed ?? 0;
  }

  /** Bytes of the hidden states of so many tokens, as sessions of this job keep them. */
  stateBytes(tokens: number): number {
    const { architecture, hiddenStates, workload } = this.context;
    const valueBytes = hiddenStates === HiddenStates.BF16 ? 2 : 4;
    return tokens * architecture.hiddenSize * valueBytes * (workload.denseTargets ? 2 : 1);
  }

  /** Tokens whose hidden states the node has room for: those that were planned and what its memory takes besides. */
  get tokenCapacity(): number {
    const { engineBytes = 0, availableBytes = 0 } = this.plan ?? {};
    return this.context.workload.tokens + Math.floor(Math.max(0, availableBytes - engineBytes) / this.stateBytes(1));
  }

  holds(shardId: string): boolean {
    return this.held.has(shardId);
  }

  async loadShard(shard: ShardDescriptor, signal: AbortSignal): Promise<void> {
    await this.node.kernel.loadShard({ sessionId: this.sessionId, shard, peer: this.peerFor('shards', shard.tensors) }, this.step(signal));
    this.held.add(shard.id);
    if (this.prefetched === shard.id) this.prefetched = undefined;
  }

  /** Begins to load a shard that is needed later. A failure shows when it is loaded for use. */
  prefetch(shard: ShardDescriptor, signal: AbortSignal): void {
    this.prefetched = shard.id;
    const request = { sessionId: this.sessionId, shard, peer: this.peerFor('shards', shard.tensors) };
    this.node.kernel.loadShard(request, this.step(signal)).catch(() => undefined);
  }

  private peerFor(kind: keyof SessionSources, content: ReceivedContent): ShardPeer | undefined {
    const peer = this.sources[kind].begin(this, content);
    return peer && { endpoint: peer.node.address, sessionId: peer.sessionId };
  }

  /** Gives back the room of a prefetched shard. */
  async releasePrefetched(signal: AbortSignal): Promise<void> {
    if (this.prefetched !== undefined) await this.releaseShard(this.prefetched, signal);
    this.prefetched = undefined;
  }

  async releaseShard(shardId: string, signal: AbortSignal): Promise<void> {
    this.held.delete(shardId);
    await this.node.kernel.releaseShard({ sessionId: this.sessionId, shardId }, { timeoutMs: CONTROL_TIMEOUT_MS, signal });
  }

  async embed(shardId: string, groups: readonly CalibrationGroup[], signal: AbortSignal): Promise<void> {
    let groupsOfCall: CalibrationGroup[] = [];
    let bytes = 0;
    for (const [place, group] of groups.entries()) {
      groupsOfCall.push(group);
      bytes += group.samples * group.sequenceLength * Int32Array.BYTES_PER_ELEMENT;
      if (bytes < EMBED_BYTES && place + 1 < groups.length) continue;
      await this.node.kernel.embed({ sessionId: this.sessionId, shardId, groups: groupsOfCall }, this.step(signal));
      groupsOfCall = [];
      bytes = 0;
    }
  }

  collectStatistics(
    shardId: string,
    { sites, grams, sketches }: { readonly sites: readonly InputSite[]; readonly grams: GramSites; readonly sketches: number },
    groupIndices: readonly number[],
    signal: AbortSignal,
  ): AsyncIterable<CollectStatisticsResponse> {
    const request = {
      sessionId: this.sessionId,
      shardId,
      groupIndices: [...groupIndices],
      sites: [...sites],
      gramSites: [...grams.sites],
      holdOut: grams.holdOut,
      sketches,
    };
    return this.node.kernel.collectStatistics(request, this.step(signal));
  }

  async publishGramSums(shardId: string, sites: readonly InputSite[], signal: AbortSignal): Promise<readonly GramSums[]> {
    const request = { sessionId: this.sessionId, shardId, sites: [...sites] };
    return (await this.node.kernel.publishGramSums(request, this.step(signal))).sums;
  }

  async reduceGramMatrices(matrices: readonly GramMatrix[], signal: AbortSignal): Promise<readonly PeerResource[]> {
    const answer = await this.node.kernel.reduceGramMatrices({ sessionId: this.sessionId, matrices: [...matrices] }, this.step(signal));
    if (answer.matrices.length !== matrices.length) {
      throw this.wrongAnswer('Gram matrices', `${answer.matrices.length} instead of ${matrices.length}`);
    }
    return answer.matrices;
  }

  /** The record of the search, the whole packed mask and, where the projection is repaired, its weights. */
  async allocateRows(
    request: Omit<AllocateRowsRequest, 'sessionId'>,
    expected: { readonly maskBytes: number; readonly weightsBytes: number },
    signal: AbortSignal,
  ): Promise<{ rows: AllocatedRows; mask: Buffer; weights: Buffer | undefined }> {
    let rows: AllocatedRows | undefined;
    const parts = { mask: new Filled(expected.maskBytes), weights: new Filled(expected.weightsBytes) };
    for await (const { part } of this.node.kernel.allocateRows({ sessionId: this.sessionId, ...request }, this.step(signal))) {
      if (part?.$case === 'rows') rows = part.value;
      else if (part !== undefined && !parts[part.$case].append(part.value)) {
        throw this.wrongAnswer(request.projectionName, `more than ${parts[part.$case].bytes.byteLength} bytes of ${part.$case}`);
      }
    }
    if (rows === undefined) throw this.wrongAnswer(request.projectionName, 'no record');
    for (const [name, { bytes, filled }] of Object.entries(parts)) {
      if (filled !== bytes.byteLength) {
        throw this.wrongAnswer(request.projectionName, `${filled} bytes of ${name} instead of ${bytes.byteLength}`);
      }
    }
    return { rows, mask: parts.mask.bytes, weights: expected.weightsBytes === 0 ? undefined : parts.weights.bytes };
  }

  countOutliers(
    shardId: string,
    projections: readonly ProjectionInputSquares[],
    threshold: number,
    signal: AbortSignal,
  ): Promise<CountOutliersResponse> {
    const request = { sessionId: this.sessionId, shardId, projections: [...projections], threshold };
    return this.node.kernel.countOutliers(request, this.step(signal));
  }

  measureSensitivity(
    shardId: string,
    projections: readonly ProjectionInputSquares[],
    sparsity: number,
    groupIndices: readonly number[],
    signal: AbortSignal,
  ): AsyncIterable<MeasureSensitivityResponse> {
    const request = { sessionId: this.sessionId, shardId, projections: [...projections], sparsity, groupIndices: [...groupIndices] };
    return this.node.kernel.measureSensitivity(request, this.step(signal));
  }

  async findEigenvalues(
    shardId: string,
    projections: readonly TensorRole[],
    onProjection: (projection: TensorRole, eigenvalues: Float64Array) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const request = { sessionId: this.sessionId, shardId, projections: [...projections] };
    for await (const { projection, eigenvalues } of this.node.kernel.findEigenvalues(request, this.step(signal))) {
      // Bytes of a message may be unaligned.
      onProjection(projection, new Float64Array(Uint8Array.from(eigenvalues).buffer));
    }
  }

  async applyMasks(shardId: string, masks: readonly MaskDescriptor[], signal: AbortSignal): Promise<void> {
    const request = { sessionId: this.sessionId, shardId, masks: [...masks], peer: this.peerFor('masks', masks) };
    await this.node.kernel.applyMasks(request, this.step(signal));
  }

  async propagate(
    shardId: string,
    groupIndices: readonly number[],
    streams: readonly HiddenStream[],
    onGroup: (groupIndex: number) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const request = { sessionId: this.sessionId, shardId, groupIndices: [...groupIndices], streams: [...streams] };
    for await (const { groupIndex } of this.node.kernel.propagate(request, this.step(signal))) onGroup(groupIndex);
  }

  async measureLoss(
    shardId: string,
    groups: readonly { readonly groupIndex: number; readonly tokens: MeasuredTokens }[],
    onGroup: (groupIndex: number, losses: readonly number[]) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const groupIndices = groups.map(({ groupIndex }) => groupIndex);
    const request = { sessionId: this.sessionId, shardId, groupIndices, tokens: groups.map(({ tokens }) => tokens) };
    for await (const { groupIndex, losses } of this.node.kernel.measureLoss(request, this.step(signal))) onGroup(groupIndex, losses);
  }

  /** Copies the hidden states of a group to where other nodes, and this process, can pull them until the group is released. */
  async publishHiddenStates(groupIndex: number, signal: AbortSignal): Promise<PeerResource> {
    const request = { sessionId: this.sessionId, groupIndices: [groupIndex] };
    const [states] = (await this.node.kernel.publishHiddenStates(request, this.step(signal))).states;
    if (states === undefined) throw this.wrongAnswer(`hidden states of group ${groupIndex}`, 'nothing');
    return states;
  }

  /** The hidden states of a group as they are now, in memory of this process. */
  async fetchHiddenStates(groupIndex: number, signal: AbortSignal): Promise<Buffer> {
    const published = await this.publishHiddenStates(groupIndex, signal);
    try {
      return await fetchResource(this.node.bulk, published, { ...FETCH_OPTIONS, signal });
    } finally {
      const request = { sessionId: this.sessionId, groupIndices: [groupIndex] };
      await this.node.kernel.withdrawHiddenStates(request, { timeoutMs: CONTROL_TIMEOUT_MS }).catch(() => undefined);
    }
  }

  async restoreHiddenStates(groups: readonly SavedGroup[], signal: AbortSignal): Promise<void> {
    await this.node.kernel.restoreHiddenStates({ sessionId: this.sessionId, groups: [...groups] }, this.step(signal));
  }

  async releaseGroups(groupIndices: readonly number[], signal: AbortSignal): Promise<void> {
    await this.node.kernel.releaseGroups({ sessionId: this.sessionId, groupIndices: [...groupIndices] }, this.step(signal));
  }

  /** Frees the session on the node if the node can still be reached. */
  async close(): Promise<void> {
    clearInterval(this.heartbeat);
    for (const sources of Object.values(this.sources)) sources.remove(this);
    await this.node.kernel.closeSession({ sessionId: this.sessionId }, { timeoutMs: CONTROL_TIMEOUT_MS }).catch(() => undefined);
    this.node.release();
  }

  private step(signal: AbortSignal): { timeoutMs: number; signal: AbortSignal } {
    return { timeoutMs: STEP_TIMEOUT_MS, signal };
  }

  /** The error of a node that cannot have computed what it was asked for; it gets no more work of the job. */
  wrongAnswer(asked: string, what: string, reason: ErrorReason = 'CORRUPT_DATA'): SecateurError {
    const { name, address } = this.node;
    const metadata = { [WRONG_NODE]: address };
    return new SecateurError(reason, `Node ${name} (${address}) answered ${asked} with ${what}.`, { metadata });
  }
}

/** Memory that is filled chunk by chunk. */
class Filled {
  readonly bytes: Buffer;
  filled = 0;

  constructor(size: number) {
    this.bytes = Buffer.alloc(size);
  }

  /** False, and nothing appended, when there is no room. */
  append(chunk: Uint8Array): boolean {
    if (this.filled + chunk.byteLength > this.bytes.byteLength) return false;
    this.bytes.set(chunk, this.filled);
    this.filled += chunk.byteLength;
    return true;
  }
}

/** An error of a node with the node's name in front. */
function named(node: PoolNode, error: unknown): unknown {
  if (!(error instanceof SecateurError)) return error;
  const { reason, metadata, violations } = error;
  return new SecateurError(reason, `${node.name} (${node.address}): ${error.message}`, { cause: error, metadata, violations });
}

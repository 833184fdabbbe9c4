import type {
  AllocatedRows,
  BlockSensitivity,
  EngineSession,
  GramSites,
  InputSite,
  OutlierCount,
  RepairedRows,
  SiteStatistics,
  TokenRange,
} from '@secateur/native';
import { SecateurError, sparsitiesOfCounts } from '@secateur/core';
import { fetchResource, type Channel, type ResourceDescriptor, type Resources } from '@secateur/rpc';
import { Attribute, EventName, SpanName, withSpan } from '@secateur/telemetry';
import { Allocation, Repair, RepairTargets, type AllocationOptions, type SwapRecord } from '@secateur/proto/allocation';
import {
  HiddenStream,
  type AllocateRowsRequest,
  type ApplyMasksRequest,
  type CountOutliersRequest,
  type LoadShardResponse,
  type MeasureSensitivityRequest,
  type OpenSessionRequest,
  type ProjectionInputSquares,
  type ReducedStatistics,
  type ShardPeer as PeerAddress,
} from '@secateur/proto/kernel_service';
import type { ShardDescriptor, TensorDescriptor, TensorRole } from '@secateur/proto/model';
import type { CalibrationGroup } from '@secateur/proto/statistics';
import {
  toEngineAllocation,
  toEngineElementType,
  toEngineGroup,
  toEngineLayout,
  toEngineProjection,
  toEngineRepair,
} from '../engine/wire-types.js';
import { traceEngineCall } from '../engine/trace-engine-call.js';
import { FETCH_OPTIONS, type ConnectToSource } from './fetch-options.js';
import { loadTensors } from './load-tensors.js';
import { GramExchange } from './gram-exchange.js';
import { HiddenStateExchange } from './hidden-state-exchange.js';
import { PeerReader } from './peer-reader.js';
import { ShardMemory } from './shard-memory.js';
import { ShardPeers, type GivenUpPeer } from './shard-peers.js';
import { ShardRelay } from './shard-relay.js';
import type { SharedVolume } from './shared-volume.js';

/** The block in use and the one that is pulled meanwhile. */
const MAXIMUM_BLOCK_SHARDS = 2;

interface LoadedShard {
  readonly tensors: ReadonlyMap<number, TensorDescriptor>;
  readonly loaded: Promise<LoadShardResponse>;
  readonly abort: AbortController;
}

/** What a session has of its node. */
export interface SessionNode {
  readonly connectToSource: ConnectToSource;
  /** What the node serves to others. */
  readonly resources: Resources;
  readonly volume: SharedVolume;
  readonly onPeerGivenUp: (given: GivenUpPeer & { readonly sessionId: string; readonly shardId: string }) => void;
}

/** The rows of a projection as they are in the end. */
interface ChangedRows {
  readonly rows: AllocatedRows;
  /** undefined where nothing is swapped, or repaired. */
  readonly swap: SwapRecord | undefined;
  readonly repaired: RepairedRows | undefined;
}

/** One job's state on this node: weights of at most two blocks, hidden states of its groups, statistics being used. */
export class KernelSession {
  private readonly shards = new Map<string, LoadedShard>();
  private readonly relay: ShardRelay;
  private readonly memory = new ShardMemory((buffer) => this.relay.end(buffer));
  private readonly maskMemory = new ShardMemory((buffer) => this.relay.end(buffer));
  /** Statistics pulled for the block in use; siblings share their input's. */
  private readonly statistics = new Map<string, Promise<Buffer>>();
  private readonly source: Channel;
  private readonly peers: PeerReader;
  private readonly shardPeers: ShardPeers;
  readonly grams: GramExchange;
  readonly hiddenStates: HiddenStateExchange;

  constructor(
    readonly request: OpenSessionRequest,
    private readonly engine: EngineSession,
    private readonly node: SessionNode,
  ) {
    const { connectToSource, resources } = node;
    this.relay = new ShardRelay(request.sessionId, resources);
    this.source = connectToSource(request.tensorEndpoint);
    this.peers = new PeerReader(connectToSource);
    this.shardPeers = new ShardPeers(this.peers);
    this.grams = new GramExchange(request.sessionId, engine, resources, this.peers);
    this.hiddenStates = new HiddenStateExchange(
      request.sessionId,
      engine,
      resources,
      (descriptor, signal) => this.fetch(descriptor, signal),
      this.peers,
    );
  }

  async loadShard(shard: ShardDescriptor, peer: PeerAddress | undefined): Promise<LoadShardResponse> {
    const existing = this.shards.get(shard.id);
    if (existing !== undefined) {
      await existing.loaded;
      return { fetchedBytes: 0, fetchSeconds: 0, peerBytes: 0 };
    }
    const blocks = [...this.shards.keys()].filter(isBlock);
    if (isBlock(shard.id) && blocks.length >= MAXIMUM_BLOCK_SHARDS) {
      throw new SecateurError(
        'FAILED_PRECONDITION',
        `Session ${this.request.sessionId} already holds ${blocks.join(' and ')}; release one before ${shard.id} is loaded.`,
      );
    }
    const abort = new AbortController();
    const loaded = this.pullShard(shard, peer, abort.signal);
    const entry = { tensors: new Map(shard.tensors.map((tensor) => [tensor.role, tensor])), loaded, abort };
    this.shards.set(shard.id, entry);
    try {
      return await loaded;
    } catch (error) {
      if (this.shards.get(shard.id) === entry) this.shards.delete(shard.id);
      throw error;
    }
  }

  private async pullShard(shard: ShardDescriptor, peer: PeerAddress | undefined, signal: AbortSignal): Promise<LoadShardResponse> {
    const layouts = shard.tensors.map(toEngineLayout);
    const fetchedBytes = shard.tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
    const started = performance.now();
    return this.memory.use(
      shard.tensors.map(({ bytes }) => bytes),
      async (targets) => {
        const peerBytes = await this.receive(shard, peer, targets, signal);
        const fetchSeconds = (performance.now() - started) / 1000;
        const tensors = layouts.map((layout, index) => ({ ...layout, bytes: targets[index]! }));
        await traceEngineCall(() => this.engine.loadShard(shard.id, tensors, { signal, attentionWindow: shard.attentionWindow }));
        return { fetchedBytes, fetchSeconds, peerBytes };
      },
    );
  }

  /** Fills the targets with the tensors of a shard, or its masks. Returns the bytes that the peer had. */
  private receive(
    { id, tensors }: Pick<ShardDescriptor, 'id' | 'tensors'>,
    address: PeerAddress | undefined,
    targets: readonly Buffer[],
    signal: AbortSignal,
  ): Promise<number> {
    const { volume, onPeerGivenUp } = this.node;
    const attributes = { [Attribute.SHARD_ID]: id, [Attribute.BYTES]: tensors.reduce((sum, { bytes }) => sum + bytes, 0) };
    return withSpan(SpanName.FETCH, { attributes }, async (span) => {
      const peer = this.shardPeers.use(address, (given) => {
        span.addEvent(EventName.PEER_GIVEN_UP, { [Attribute.PEER]: given.peer, [Attribute.REASON]: given.error.message });
        onPeerGivenUp({ ...given, sessionId: this.request.sessionId, shardId: id });
      });
      const loaded = await loadTensors({ volume, peer, orchestrator: this.source }, this.relay, tensors, targets, signal);
      if (loaded.peer > 0) span.setAttributes({ [Attribute.PEER]: address?.endpoint ?? '', [Attribute.PEER_BYTES]: loaded.peer });
      return loaded.peer;
    });
  }

  private fetch(descriptor: ResourceDescriptor, signal: AbortSignal): Promise<Buffer> {
    return fetchResource(this.source, descriptor, { ...FETCH_OPTIONS, signal });
  }

  async releaseShard(shardId: string): Promise<void> {
    const shard = this.shards.get(shardId);
    if (shard === undefined) return;
    this.shards.delete(shardId);
    if (isBlock(shardId)) this.statistics.clear();
    this.grams.release(shardId);
    shard.abort.abort();
    await shard.loaded.then(
      () => this.engine.releaseShard(shardId),
      () => undefined,
    );
  }

  async embed(shardId: string, groups: readonly CalibrationGroup[], signal: AbortSignal): Promise<void> {
    await this.requireShard(shardId);
    for (const group of groups) await traceEngineCall(() => this.engine.embed(shardId, toEngineGroup(group), { signal }));
  }

  async collectStatistics(
    shardId: string,
    groupIndex: number,
    { sites, grams, sketches }: { readonly sites: readonly InputSite[]; readonly grams: GramSites; readonly sketches: number },
    signal: AbortSignal,
  ): Promise<readonly SiteStatistics[]> {
    await this.requireShard(shardId);
    return traceEngineCall(() =>
      grams.sites.length === 0
        ? this.engine.collectStatistics(shardId, groupIndex, sites, { sketches, signal })
        : this.engine.collectWithGram(shardId, groupIndex, sites, grams, { sketches, signal }),
    );
  }

  async propagate(shardId: string, groupIndex: number, streams: readonly HiddenStream[], signal: AbortSignal): Promise<void> {
    await this.requireShard(shardId);
    for (const stream of streams) {
      await traceEngineCall(() =>
        stream === HiddenStream.DENSE
          ? this.engine.propagateDense(shardId, groupIndex, { signal })
          : this.engine.propagate(shardId, groupIndex, { signal }),
      );
    }
  }

  async measureLoss(
    shardId: string,
    groupIndex: number,
    ranges: readonly TokenRange[] | undefined,
    signal: AbortSignal,
  ): Promise<Float64Array> {
    await this.requireShard(shardId);
    return traceEngineCall(() => this.engine.measureLoss(shardId, groupIndex, ranges, { signal }));
  }

  /** The allocation of a projection and, where its mask or kept weights change after that, its repair. */
  async allocateRows(request: AllocateRowsRequest, signal: AbortSignal): Promise<ChangedRows> {
    const shard = await this.requireShard(request.shardId);
    if (request.statistics === undefined || request.options === undefined) {
      throw new SecateurError('INVALID_REQUEST', 'AllocateRows needs statistics and options.');
    }
    const projection = toEngineProjection(request.projection);
    const options = toEngineAllocation(request.options, request.rowSparsities);
    const statistics = await this.pullStatistics(request.statistics, shard);
    const rows = await traceEngineCall(() =>
      this.engine.allocateRows(request.shardId, projection, request.targetSparsity, statistics, options, { signal }),
    );
    return { rows, swap: undefined, repaired: undefined, ...(await this.repairRows(request, request.options, rows, signal)) };
  }

  /** What changes after the allocation; nothing where masks and kept weights stay as they are. */
  private async repairRows(
    { shardId, projection: role, statistics, repair, swap }: AllocateRowsRequest,
    { score, allocation }: AllocationOptions,
    rows: AllocatedRows,
    signal: AbortSignal,
  ): Promise<Partial<ChangedRows>> {
    const method = toEngineRepair(score, repair?.method ?? Repair.NONE);
    if (method === 'none' && swap === undefined) return {};
    const shard = await this.requireShard(shardId);
    const { samples = 0, columns = 0, gramMatrix: gram, heldOutGramMatrix: heldOut, drift } = statistics ?? {};
    const dataType = shard.tensors.get(role)?.dataType;
    if (gram === undefined || repair === undefined || dataType === undefined || (heldOut === undefined) !== (swap === undefined)) {
      throw new SecateurError('INVALID_REQUEST', 'A repair needs settings, a Gram matrix (with swaps two) and a projection.');
    }
    if ((drift === undefined) === (repair.targets === RepairTargets.DENSE)) {
      throw new SecateurError('INVALID_REQUEST', 'A repair needs the drift of the inputs with dense targets, and only then.');
    }
    const input = {
      samples,
      gram: await this.grams.matrix(shardId, gram, signal),
      heldOutGram: heldOut === undefined ? null : await this.grams.matrix(shardId, heldOut, signal),
      drift: drift === undefined ? null : await this.grams.matrix(shardId, drift, signal),
      mask: rows.mask,
      elementType: toEngineElementType(dataType),
    };
    const options = {
      method,
      damping: repair.damping,
      iterations: repair.iterations,
      // Where rows may drop different shares, the lowest weights of a block of columns go whatever their row.
      acrossRows: allocation === Allocation.UNIFORM,
      swaps: swap === undefined ? 0 : Math.ceil(swap.most * columns),
    };
    const repaired = await traceEngineCall(() => this.engine.repairRows(shardId, toEngineProjection(role), input, options, { signal }));
    const { mask, dropped, droppedPerRow, errorBeforeSwaps, errorBefore } = repaired;
    // A repair may drop other counts than the allocation; their sum stays.
    const rowSparsities = sparsitiesOfCounts(droppedPerRow, columns);
    return {
      rows: { ...rows, mask, dropped, droppedPerRow, rowSparsities },
      swap: swap && { swaps: repaired.swaps, errorBefore: errorBeforeSwaps, errorAfter: errorBefore },
      repaired: method === 'none' ? undefined : repaired,
    };
  }

  private async pullStatistics(statistics: ReducedStatistics, shard: LoadedShard) {
    const { columns } = statistics;
    const samples = statistics.samples * Math.max(1, statistics.sketches);
    const [meanSquares, qualityInputs] = await withSpan(
      SpanName.FETCH,
      { attributes: { [Attribute.BYTES]: 4 * columns * (samples + 1) } },
      () =>
        Promise.all([
          this.pullOnce(statistics.meanSquaresResource, 4 * columns, shard),
          this.pullOnce(statistics.qualityInputsResource, 4 * columns * samples, shard),
        ]),
    );
    return { samples, columns, meanSquares, qualityInputs };
  }

  /** Calls that wait for the same bytes share them, so no one call's end ends the pull, but that of the shard does. */
  private pullOnce(resource: string, bytes: number, { abort }: LoadedShard): Promise<Buffer> {
    let pulled = this.statistics.get(resource);
    if (pulled === undefined) {
      pulled = this.fetch({ resource, bytes }, abort.signal);
      this.statistics.set(resource, pulled);
      pulled.catch(() => this.statistics.delete(resource));
    }
    return pulled;
  }

  async countOutliers({ shardId, projections, threshold }: CountOutliersRequest, signal: AbortSignal): Promise<OutlierCount> {
    const shard = await this.requireShard(shardId);
    const inputs = await this.pullInputSquares(projections, shard);
    return traceEngineCall(() => this.engine.countOutliers(shardId, inputs, threshold, { signal }));
  }

  async measureSensitivity(
    { shardId, groupIndices, projections, sparsity }: MeasureSensitivityRequest,
    signal: AbortSignal,
  ): Promise<readonly BlockSensitivity[]> {
    const shard = await this.requireShard(shardId);
    const inputs = await this.pullInputSquares(projections, shard);
    return traceEngineCall(() => this.engine.measureSensitivity(shardId, groupIndices, inputs, sparsity, { signal }));
  }

  private pullInputSquares(projections: readonly ProjectionInputSquares[], shard: LoadedShard) {
    return Promise.all(
      projections.map(async ({ projection, columns, meanSquaresResource }) => ({
        projection: toEngineProjection(projection),
        meanSquares: await this.pullOnce(meanSquaresResource, 4 * columns, shard),
      })),
    );
  }

  async findEigenvalues(shardId: string, projection: TensorRole, signal: AbortSignal): Promise<Float64Array> {
    await this.requireShard(shardId);
    return traceEngineCall(() => this.engine.eigenvalues(shardId, toEngineProjection(projection), { signal }));
  }

  async applyMasks({ shardId, masks, peer }: ApplyMasksRequest, signal: AbortSignal): Promise<void> {
    const shard = await this.requireShard(shardId);
    const tensors = masks.map(({ projection, resource, repaired, digest }) => {
      const masked = shard.tensors.get(projection);
      const [rows, columns] = masked?.shape ?? [];
      if (masked === undefined || rows === undefined || columns === undefined) {
        throw new SecateurError('INVALID_REQUEST', `${shardId} has no weight with role ${projection} to mask.`);
      }
      const bytes = repaired ? masked.bytes : rows * Math.ceil(columns / 8);
      // No volume has it.
      return { ...masked, resource, bytes, digest, path: '' };
    });
    await this.maskMemory.use(
      tensors.map(({ bytes }) => bytes),
      async (targets) => {
        await this.receive({ id: `${shardId}/masks`, tensors }, peer, targets, signal);
        for (const [index, { projection: role, repaired }] of masks.entries()) {
          const projection = toEngineProjection(role);
          const elementType = toEngineElementType(tensors[index]!.dataType);
          await traceEngineCall(() =>
            repaired
              ? this.engine.replaceWeights(shardId, projection, elementType, targets[index]!, { signal })
              : this.engine.applyMask(shardId, projection, targets[index]!, { signal }),
          );
        }
      },
    );
  }

  async close(): Promise<void> {
    for (const shard of this.shards.values()) shard.abort.abort();
    this.source.close();
    this.relay.close();
    this.grams.close();
    this.hiddenStates.close();
    this.peers.close();
    await this.engine.close();
  }

  private async requireShard(shardId: string): Promise<LoadedShard> {
    const shard = this.shards.get(shardId);
    if (shard === undefined) {
      throw new SecateurError('FAILED_PRECONDITION', `Session ${this.request.sessionId} holds no shard ${shardId}; load it first.`);
    }
    await shard.loaded;
    return shard;
  }
}

function isBlock(shardId: string): boolean {
  return shardId.startsWith('block/');
}

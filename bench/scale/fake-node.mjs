import {
  AllocatedRows,
  AllocateRowsRequest,
  ApplyMasksRequest,
  CollectStatisticsRequest,
  DescribeNodeResponse,
  EmbedRequest,
  LoadShardRequest,
  PropagateRequest,
  ReleaseShardRequest,
} from '../../proto/dist/secateur/v1/kernel_service.js';
import { PoolNode } from '../../services/orchestrator/dist/scheduler/node-pool.js';
import { makeLink } from './shared-links.mjs';
import { allocationSeconds, passFlops } from './cost-model.mjs';
import { need } from './need.mjs';

/**
 * @import { AllocateRowsResponse, CollectStatisticsResponse, PropagateResponse } from '../../proto/dist/secateur/v1/kernel_service.js'
 * @import { KernelServiceDefinition, ShardPeer } from '../../proto/dist/secateur/v1/kernel_service.js'
 * @import { InputSite, SiteStatistics } from '../../proto/dist/secateur/v1/statistics.js'
 * @import { ServiceClient } from '../../packages/rpc/dist/index.js'
 */

/** What goes over the wire. @typedef {'checkpoint' | 'masks' | 'statistics' | 'tokens'} Kind */
/** What a node receives whole. @typedef {{ readonly id: string, readonly tensors: readonly { readonly bytes: number }[] }} Content */
/** @typedef {{ groupIndex: number, statistics: SiteStatistics[], bytes: number }} GroupAnswer */

const PULLS_AT_ONCE = 2;
const FLOAT64_BYTES = 8;
const FLOAT32_BYTES = 4;

/** Why a node that does not compute waits, what counts first coming first. */
export const WAITS = /** @type {const} */ (['masks', 'statistics', 'checkpoint']);

/**
 * A kernel node without tensors: it has the calls of KernelService, which take the time that the cost model says and answer with as many bytes as a real
 * node. It serves one job.
 */
export class FakeNode extends PoolNode {
  /** Computing, by what for. */
  flops = { collect: 0, allocate: 0, propagate: 0 };
  isComputing = false;
  /** What it waits for, as a count for each reason. */
  waits = { masks: 0, statistics: 0, checkpoint: 0 };
  /** Groups and projections it was asked for, in order. @type {{ step: string, layer: string, part: string | number }[]} */
  visits = [];
  #engineIsFree = Promise.resolve();
  /** @type {Map<string, Promise<void>>} */
  #shards = new Map();
  /** @type {Map<string, Promise<unknown>>} */
  #received = new Map();
  /** @type {Map<string, Promise<void>>} */
  #statistics = new Map();
  /** @type {Map<number, { samples: number, sequenceLength: number }>} */
  #groups = new Map();

  /** @override @type {ServiceClient<KernelServiceDefinition>} */
  kernel = {
    describeNode: () => this.#call(async () => DescribeNodeResponse.fromPartial({ name: this.name })),
    openSession: () => this.#call(async () => ({ plan: undefined })),
    closeSession: () => this.#call(async () => ({})),
    loadShard: (request) => this.#call(() => this.#loadShard(LoadShardRequest.fromPartial(request))),
    releaseShard: (request) => this.#call(() => this.#releaseShard(ReleaseShardRequest.fromPartial(request))),
    embed: (request) => this.#call(() => this.#embed(EmbedRequest.fromPartial(request))),
    applyMasks: (request) => this.#call(() => this.#applyMasks(ApplyMasksRequest.fromPartial(request))),
    collectStatistics: (request) => this.#collectStatistics(CollectStatisticsRequest.fromPartial(request)),
    propagate: (request) => this.#propagate(PropagateRequest.fromPartial(request)),
    allocateRows: (request) => this.#allocateRows(AllocateRowsRequest.fromPartial(request)),
    // What no simulated job asks for.
    planSession: notSimulated,
    countOutliers: notSimulated,
    measureSensitivity: notSimulated,
    findEigenvalues: notSimulated,
    publishGramSums: notSimulated,
    reduceGramMatrices: notSimulated,
    measureLoss: notSimulated,
    publishHiddenStates: notSimulated,
    withdrawHiddenStates: notSimulated,
    restoreHiddenStates: notSimulated,
    releaseGroups: notSimulated,
  };

  /**
   * @param {string} name
   * @param {import('./cost-model.mjs').NodeSpeed} speed
   * @param {import('./simulate-job.mjs').Simulation} simulation
   */
  constructor(name, speed, simulation) {
    super(`${name}:1`, undefined);
    this.healthy = true;
    this.reason = '';
    this.description = DescribeNodeResponse.fromPartial({ name });
    this.speed = speed;
    this.simulation = simulation;
    this.in = makeLink(`${name} in`, speed.linkBytesPerSecond);
    this.out = makeLink(`${name} out`, speed.linkBytesPerSecond);
    this.puller = makeLink(`${name} pulls`, speed.pulledBytesPerSecond);
  }

  /** @template Result @param {() => Promise<Result>} work @returns {Promise<Result>} */
  async #call(work) {
    await this.simulation.clock.sleep(this.simulation.orchestrator.callSeconds);
    return work();
  }

  /** @template Result @param {typeof WAITS[number]} reason @param {Promise<Result>} what @returns {Promise<Result>} */
  async #waitFor(reason, what) {
    this.waits[reason] += 1;
    try {
      return await what;
    } finally {
      this.waits[reason] -= 1;
    }
  }

  /** The engine does one thing at a time. @param {number} seconds */
  #compute(seconds) {
    const done = this.#engineIsFree.then(async () => {
      this.isComputing = true;
      await this.simulation.clock.sleep(seconds);
      this.isComputing = false;
    });
    this.#engineIsFree = done;
    return done;
  }

  /** @param {Kind} kind @param {number} bytes */
  #pull(kind, bytes) {
    return this.simulation.serve(kind, bytes, this);
  }

  /** @param {LoadShardRequest} request */
  async #loadShard({ shard: described, peer }) {
    const shard = need(described, 'shard');
    const existing = this.#shards.get(shard.id);
    // A block that is pulled while another is in use is not waited for.
    const isAwaited = existing !== undefined || this.#shards.size === 0;
    const loaded = existing ?? this.#pullShard(shard, peer);
    this.#shards.set(shard.id, loaded);
    await (isAwaited ? this.#waitFor('checkpoint', loaded) : loaded);
    return { fetchedBytes: 0, fetchSeconds: 0, peerBytes: 0 };
  }

  /** @param {Content} shard @param {ShardPeer | undefined} peer */
  async #pullShard({ id, tensors }, peer) {
    const { volumeBytesPerSecond } = this.speed;
    // What is read at once shares the volume.
    const read =
      volumeBytesPerSecond === undefined
        ? undefined
        : (/** @type {number} */ bytes) => this.simulation.clock.sleep((bytes * PULLS_AT_ONCE) / volumeBytesPerSecond);
    await this.#receive('checkpoint', { id, tensors }, read ? undefined : peer, read);
    const bytes = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
    await this.#compute(bytes / this.speed.loadedBytesPerSecond);
  }

  /**
   * What a peer has is passed on while it comes, so this is over when both are.
   * @param {'checkpoint' | 'masks'} kind
   * @param {Content} content
   * @param {ShardPeer | undefined} address
   * @param {(bytes: number) => Promise<void>} [pull]
   */
  #receive(kind, { id, tensors }, address, pull) {
    const peer = address && this.simulation.nodeAt(address.endpoint);
    const remaining = tensors.values();
    const pullOne = pull ?? ((bytes) => (peer ? this.simulation.passOn(kind, bytes, peer, this) : this.#pull(kind, bytes)));
    const pullRemaining = async () => {
      for (const { bytes } of remaining) await pullOne(bytes);
    };
    const received = Promise.all([peer?.received(id), ...Array.from({ length: PULLS_AT_ONCE }, pullRemaining)]);
    this.#received.set(id, received);
    return received;
  }

  /** Resolves when the node has the bytes of a shard, or its masks. @param {string} id */
  received(id) {
    return this.#received.get(id);
  }

  /** @param {ReleaseShardRequest} request */
  async #releaseShard({ shardId }) {
    this.#statistics.clear();
    await this.#shards.get(shardId);
    this.#shards.delete(shardId);
    return {};
  }

  /** @param {EmbedRequest} request */
  async #embed({ groups }) {
    for (const { index, samples, sequenceLength } of groups) {
      this.#groups.set(index, { samples, sequenceLength });
      await this.#pull('tokens', samples * sequenceLength * 4);
    }
    return {};
  }

  /** @param {ApplyMasksRequest} request */
  async #applyMasks({ shardId, masks, peer }) {
    const tensors = await Promise.all(masks.map(({ resource }) => this.simulation.resources.find(resource)));
    await this.#waitFor('masks', this.#receive('masks', { id: `${shardId}/masks`, tensors }, peer));
    for (const { projection } of masks) {
      const { rows, columns } = this.simulation.projectionOf(projection);
      await this.#compute((2 * rows * columns) / this.speed.maskedBytesPerSecond);
    }
    return {};
  }

  /** @param {string} shardId */
  #blockOf(shardId) {
    return need(this.simulation.model.blocks[Number(shardId.split('/')[1])], shardId);
  }

  /** @param {number} groupIndex */
  #groupOf(groupIndex) {
    return need(this.#groups.get(groupIndex), `group ${groupIndex}`);
  }

  /** @param {'collect' | 'propagate'} step @param {string} shardId @param {number} groupIndex @param {readonly InputSite[]} [sites] */
  async #pass(step, shardId, groupIndex, sites) {
    await this.#shards.get(shardId);
    this.visits.push({ step, layer: shardId, part: groupIndex });
    const { products, attention } = passFlops(this.simulation.model.architecture, this.#blockOf(shardId), this.#groupOf(groupIndex), sites);
    this.flops[step] += products;
    const speed = step === 'propagate' ? this.speed.prunedProductsPerSecond : this.speed.productsPerSecond;
    await this.#compute((products + attention) / speed);
  }

  /**
   * A node computes the next group while the statistics of the last are on their way.
   * @param {CollectStatisticsRequest} request @returns {AsyncGenerator<CollectStatisticsResponse, void, undefined>}
   */
  async *#collectStatistics({ shardId, groupIndices, sites, sketches }) {
    await this.#call(async () => undefined);
    const answers = groupIndices.map((groupIndex) => ({ groupIndex, ...deferredAnswer() }));
    const computeAll = async () => {
      for (const { groupIndex, resolve } of answers) {
        await this.#pass('collect', shardId, groupIndex, sites);
        const { samples } = this.#groupOf(groupIndex);
        const statistics = sites.map((site) => this.simulation.statisticsOf(site, samples * Math.max(1, sketches)));
        const bytes = statistics.reduce(
          (sum, { sumsOfSquares, qualityInputs }) => sum + sumsOfSquares.byteLength + qualityInputs.byteLength,
          0,
        );
        const received = this.#waitFor('statistics', this.simulation.receive('statistics', bytes, this));
        void received.then(() => resolve({ groupIndex, statistics, bytes }));
      }
    };
    void computeAll();
    for (const { promise } of answers) {
      const { groupIndex, statistics, bytes } = await promise;
      await this.simulation.reduceAfterLast(shardId, groupIndex, bytes);
      for (const [place, ofSite] of statistics.entries()) {
        yield { groupIndex, statistics: ofSite, groupDone: place === statistics.length - 1 };
      }
    }
  }

  /** @param {PropagateRequest} request @returns {AsyncGenerator<PropagateResponse, void, undefined>} */
  async *#propagate({ shardId, groupIndices }) {
    await this.#call(async () => undefined);
    for (const groupIndex of groupIndices) {
      await this.#pass('propagate', shardId, groupIndex);
      yield { groupIndex };
    }
  }

  /** @param {AllocateRowsRequest} request @returns {AsyncGenerator<AllocateRowsResponse, void, undefined>} */
  async *#allocateRows({ shardId, projection: role, projectionName, statistics: reduced }) {
    await this.#call(async () => undefined);
    const statistics = need(reduced, `statistics for ${projectionName}`);
    this.visits.push({ step: 'allocate', layer: shardId, part: projectionName });
    const { rows, columns } = this.simulation.projectionOf(role);
    const samples = statistics.samples * Math.max(1, statistics.sketches);
    await Promise.all([this.#pullOnce(statistics.meanSquaresResource), this.#pullOnce(statistics.qualityInputsResource)]);
    this.flops.allocate += 2 * rows * columns * samples;
    await this.#compute(allocationSeconds(this.speed, { rows, columns }, samples));
    const mask = this.simulation.bytes(rows * Math.ceil(columns / 8));
    const counts = this.simulation.bytes(rows * FLOAT32_BYTES);
    await this.#waitFor('masks', this.simulation.receive('masks', mask.byteLength + 2 * counts.byteLength, this));
    // Nothing, whatever was asked for: what a mask drops changes no time here.
    const rowsOf = { record: { dropped: 0 }, rowSparsities: counts, droppedPerRow: counts };
    yield { part: { $case: 'rows', value: AllocatedRows.fromPartial(rowsOf) } };
    yield { part: { $case: 'mask', value: mask } };
  }

  /** @param {string} resource */
  #pullOnce(resource) {
    let pulled = this.#statistics.get(resource);
    if (pulled === undefined) {
      pulled = this.simulation.resources.find(resource).then(({ bytes }) => this.#pull('statistics', bytes));
      this.#statistics.set(resource, pulled);
    }
    return this.#waitFor('statistics', pulled);
  }
}

/** Sizes of what a group answers for one site. @param {number} columns @param {number} inputs */
export function statisticsBytes(columns, inputs) {
  return { sums: columns * FLOAT64_BYTES, inputs: inputs * columns * FLOAT32_BYTES };
}

/** @returns {never} */
function notSimulated() {
  throw new Error('The simulation has no such call.');
}

function deferredAnswer() {
  /** @type {(value: GroupAnswer) => void} */
  let resolve = () => undefined;
  /** @type {Promise<GroupAnswer>} */
  const promise = new Promise((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

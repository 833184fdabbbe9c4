import { makeLink } from './shared-links.mjs';
import { allocationSeconds, passFlops } from './cost-model.mjs';

const PULLS_AT_ONCE = 2;
const FLOAT64_BYTES = 8;
const FLOAT32_BYTES = 4;

/** Why a node that does not compute waits, what counts first coming first. */
export const WAITS = /** @type {const} */ (['masks', 'statistics', 'checkpoint']);

/**
 * A kernel node without tensors: it has the calls of KernelService, which take the time that the cost model says and answer with as many bytes as a real
 * node. It serves one job.
 */
export class FakeNode {
  healthy = true;
  leaving = false;
  reason = '';
  description = { name: '', peakResidentBytes: 0 };
  /** Computing, by what for. @type {Record<string, number>} */
  flops = { collect: 0, allocate: 0, propagate: 0 };
  isComputing = false;
  /** What it waits for, as a count for each reason. */
  waits = Object.fromEntries(WAITS.map((reason) => [reason, 0]));
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

  /**
   * @param {string} name
   * @param {import('./cost-model.mjs').NodeSpeed} speed
   * @param {import('./simulate-job.mjs').Simulation} simulation
   */
  constructor(name, speed, simulation) {
    this.name = name;
    this.address = `${name}:1`;
    this.speed = speed;
    this.simulation = simulation;
    this.in = makeLink(`${name} in`, speed.linkBytesPerSecond);
    this.out = makeLink(`${name} out`, speed.linkBytesPerSecond);
    this.puller = makeLink(`${name} pulls`, speed.pulledBytesPerSecond);
    this.kernel = {
      describeNode: () => this.#call(async () => this.description),
      openSession: () => this.#call(async () => ({ plan: undefined })),
      closeSession: () => this.#call(async () => ({})),
      loadShard: ({ shard, peer }) => this.#call(() => this.#loadShard(shard, peer)),
      releaseShard: ({ shardId }) => this.#call(() => this.#releaseShard(shardId)),
      embed: ({ groups }) => this.#call(() => this.#embed(groups)),
      applyMasks: (request) => this.#call(() => this.#applyMasks(request)),
      collectStatistics: (request) => this.#collectStatistics(request),
      propagate: (request) => this.#propagate(request),
      allocateRows: (request) => this.#allocateRows(request),
    };
  }

  async describe() {}

  retain() {}

  release() {}

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

  /** @param {string} kind @param {number} bytes */
  #pull(kind, bytes) {
    return this.simulation.serve(kind, bytes, this);
  }

  /**
   * @param {{ id: string, tensors: readonly { bytes: number }[] }} shard
   * @param {{ endpoint: string } | undefined} peer
   */
  async #loadShard(shard, peer) {
    const existing = this.#shards.get(shard.id);
    // A block that is pulled while another is in use is not waited for.
    const isAwaited = existing !== undefined || this.#shards.size === 0;
    const loaded = existing ?? this.#pullShard(shard, peer);
    this.#shards.set(shard.id, loaded);
    await (isAwaited ? this.#waitFor('checkpoint', loaded) : loaded);
    return { fetchedBytes: 0, fetchSeconds: 0 };
  }

  /**
   * @param {{ id: string, tensors: readonly { bytes: number }[] }} shard
   * @param {{ endpoint: string } | undefined} peer
   */
  async #pullShard({ id, tensors }, peer) {
    const { volumeBytesPerSecond } = this.speed;
    // What is read at once shares the volume.
    const read = volumeBytesPerSecond && ((bytes) => this.simulation.clock.sleep((bytes * PULLS_AT_ONCE) / volumeBytesPerSecond));
    await this.#receive('checkpoint', { id, tensors }, read ? undefined : peer, read);
    const bytes = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
    await this.#compute(bytes / this.speed.loadedBytesPerSecond);
  }

  /**
   * What a peer has is passed on while it comes, so this is over when both are.
   * @param {'checkpoint' | 'masks'} kind
   * @param {{ id: string, tensors: readonly { bytes: number }[] }} content
   * @param {{ endpoint: string } | undefined} address
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

  /** @param {string} shardId */
  async #releaseShard(shardId) {
    this.#statistics.clear();
    await this.#shards.get(shardId);
    this.#shards.delete(shardId);
    return {};
  }

  /** @param {readonly { index: number, samples: number, sequenceLength: number }[]} groups */
  async #embed(groups) {
    for (const { index, samples, sequenceLength } of groups) {
      this.#groups.set(index, { samples, sequenceLength });
      await this.#pull('tokens', samples * sequenceLength * 4);
    }
    return {};
  }

  async #applyMasks({ shardId, masks, peer }) {
    const tensors = await Promise.all(masks.map(({ resource }) => this.simulation.resources.find(resource)));
    await this.#waitFor('masks', this.#receive('masks', { id: `${shardId}/masks`, tensors }, peer));
    for (const { projection } of masks) {
      const { rows, columns } = this.simulation.projectionOf(projection);
      await this.#compute((2 * rows * columns) / this.speed.maskedBytesPerSecond);
    }
    return {};
  }

  #blockOf(shardId) {
    return this.simulation.model.blocks[Number(shardId.split('/')[1])];
  }

  /** @param {string} step @param {string} shardId @param {number} groupIndex @param {readonly number[]} [sites] */
  async #pass(step, shardId, groupIndex, sites) {
    await this.#shards.get(shardId);
    this.visits.push({ step, layer: shardId, part: groupIndex });
    const { products, attention } = passFlops(
      this.simulation.model.architecture,
      this.#blockOf(shardId),
      this.#groups.get(groupIndex),
      sites,
    );
    this.flops[step] += products;
    const speed = step === 'propagate' ? this.speed.prunedProductsPerSecond : this.speed.productsPerSecond;
    await this.#compute((products + attention) / speed);
  }

  /** A node computes the next group while the statistics of the last are on their way. */
  async *#collectStatistics({ shardId, groupIndices, sites, sketches }) {
    await this.#call(async () => undefined);
    const answers = groupIndices.map(() => deferred());
    const computeAll = async () => {
      for (const [place, groupIndex] of groupIndices.entries()) {
        await this.#pass('collect', shardId, groupIndex, sites);
        const { samples } = this.#groups.get(groupIndex);
        const statistics = sites.map((site) => this.simulation.statisticsOf(site, samples * Math.max(1, sketches)));
        const bytes = statistics.reduce(
          (sum, { sumsOfSquares, qualityInputs }) => sum + sumsOfSquares.byteLength + qualityInputs.byteLength,
          0,
        );
        const received = this.#waitFor('statistics', this.simulation.receive('statistics', bytes, this));
        void received.then(() => answers[place].resolve({ groupIndex, statistics, bytes }));
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

  async *#propagate({ shardId, groupIndices }) {
    await this.#call(async () => undefined);
    for (const groupIndex of groupIndices) {
      await this.#pass('propagate', shardId, groupIndex);
      yield { groupIndex };
    }
  }

  async *#allocateRows({ shardId, projection: role, projectionName, statistics }) {
    await this.#call(async () => undefined);
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
    yield { part: { $case: 'rows', value: { record: { dropped: 0 }, rowSparsities: counts, droppedPerRow: counts, seconds: 0 } } };
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

function deferred() {
  /** @type {(value: any) => void} */
  let resolve = () => undefined;
  const promise = new Promise((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

/** Nodes without the checkpoint pull its shards from each other, and all nodes masks: the orchestrator sends them once, and nothing is lost with a node that passes them on. */
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { openCheckpoint, type Checkpoint } from '@secateur/checkpoint';
import { loadHasher, parseArchitecture, planModel, splitIntoGroups, type ModelPlan, type PlannedShard } from '@secateur/core';
import { KernelServiceDefinition, type MaskDescriptor, type ShardPeer } from '@secateur/proto/kernel_service';
import { Compute, type ShardDescriptor } from '@secateur/proto/model';
import { TensorServiceDefinition } from '@secateur/proto/tensor_service';
import { connect, fetchResource, RpcServer, serveFetch, type Channel, type ServiceClient } from '@secateur/rpc';
import { describeStoredShard } from '../support/describe-shard.js';
import { Cluster, ServiceProcess } from '../support/cluster.js';
import { eventually, prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { modelPath, withTemporaryFolder } from '../support/paths.js';
import { recordedSpans, type RecordedSpan } from '../support/spans.js';

describe('a job on nodes without the checkpoint', () => {
  const MODEL = 'books-llama';

  interface Outcome {
    readonly hashes: Readonly<Record<string, string>>;
    /** Bytes of shards and masks that the nodes which are left got, by where from. */
    readonly received: Readonly<Record<string, number>>;
    /** The same of masks alone, by nodes whose traces were read. */
    readonly masks: Readonly<Record<'orchestrator' | 'peer', number>>;
    /** Fetches of shards and masks from another node. */
    readonly fromPeers: number;
  }

  async function run(nodes: number, onStep?: (layer: number, step: string, cluster: Cluster) => void): Promise<Outcome> {
    return withTemporaryFolder(async (folder) => {
      await using cluster = await Cluster.start({ nodes, http: true });
      const output = join(folder, 'pruned');
      await prune(cluster.client, 'job', { ...pruneSpec(MODEL, output), recordTrace: true }, ({ event }) => {
        if (event?.$case === 'progress') onStep?.(event.value.layer, event.value.step, cluster);
      });
      const fetches = (await recordedSpans(cluster.client, 'job')).filter(({ name }) => name === 'secateur.fetch');
      return {
        hashes: await hashOutput(output),
        received: await receivedBy(cluster.nodesHttp),
        masks: masksOf(fetches),
        fromPeers: fetches.filter(({ attributes }) => attributes.has('secateur.peer')).length,
      };
    });
  }

  function masksOf(fetches: readonly RecordedSpan[]): Outcome['masks'] {
    const masks = { orchestrator: 0, peer: 0 };
    for (const { attributes } of fetches) {
      if (!String(attributes.get('secateur.shard.id')).endsWith('/masks')) continue;
      const peer = Number(attributes.get('secateur.peer.bytes') ?? 0);
      masks.peer += peer;
      masks.orchestrator += Number(attributes.get('secateur.bytes')) - peer;
    }
    return masks;
  }

  async function receivedBy(addresses: readonly string[]): Promise<Record<string, number>> {
    const received: Record<string, number> = {};
    for (const address of addresses) {
      const answer = await fetch(`http://${address}/metrics`).catch(() => undefined);
      for (const [, source = '', bytes] of (await answer?.text())?.matchAll(
        /^secateur_shard_received\S*secateur_source="(\w+)"\S*\s+(\d+)/gm,
      ) ?? []) {
        received[source] = (received[source] ?? 0) + Number(bytes);
      }
    }
    return received;
  }

  let alone: Outcome;
  beforeAll(async () => {
    alone = await run(1);
  });

  test('is sent every shard and every mask once, whatever the number of nodes', async () => {
    expect(alone).toMatchObject({ received: { orchestrator: expect.any(Number) }, fromPeers: 0 });
    const { hashes, received, masks, fromPeers } = await run(3);
    expect(hashes).toEqual(alone.hashes);
    // One more where a node was late; without peers it would be sent three times.
    expect(received['orchestrator']).toBeLessThan(2 * alone.received['orchestrator']!);
    expect(received['peer']).toBeGreaterThan(alone.received['orchestrator']!);
    expect(received['orchestrator']! + received['peer']!).toBe(3 * alone.received['orchestrator']!);
    expect(fromPeers).toBeGreaterThan(0);
    expect(alone.masks.orchestrator).toBeGreaterThan(0);
    expect(masks.orchestrator).toBeLessThan(2 * alone.masks.orchestrator);
    expect(masks.orchestrator + masks.peer).toBe(3 * alone.masks.orchestrator);
  });

  test.each([0, 1])('gives the same bytes when node %i is killed', async (place) => {
    let killed: Promise<void> | undefined;
    const { hashes, fromPeers } = await run(3, (layer, step, cluster) => {
      if (layer === 1 && step === 'propagate') killed ??= cluster.nodes[place]!.signal('SIGKILL');
    });
    expect(killed).toBeDefined();
    expect(hashes).toEqual(alone.hashes);
    expect(fromPeers).toBeGreaterThan(0);
  });
});

describe('a node that is told of a peer', () => {
  const CALL = { timeoutMs: 30_000 };
  const [PEER, FOLLOWER] = ['peer', 'follower'];
  const GROUPS = splitIntoGroups(
    Int32Array.from({ length: 8 * 16 }, (_, position) => position % 100),
    8,
    16,
  );

  interface StartedNode {
    readonly process: ServiceProcess;
    readonly address: string;
    readonly channel: Channel;
    readonly kernel: ServiceClient<typeof KernelServiceDefinition>;
  }

  let checkpoint: Checkpoint;
  let plan: ModelPlan;
  let digests: Map<string, string>;
  /** What is served besides the checkpoint, by name. */
  const masks = new Map<string, Buffer>();
  /** Plays the orchestrator. */
  let tensors: RpcServer;
  let tensorEndpoint: string;
  /** How often each tensor was begun to be sent. */
  const sent = new Map<string, number>();
  /** Tensors that are not sent before this. */
  let withheld: { readonly names: ReadonlySet<string>; readonly until: Promise<void> } | undefined;
  let peer: StartedNode;
  let follower: StartedNode;

  beforeAll(async () => {
    checkpoint = await openCheckpoint(modelPath('books-opt'));
    plan = planModel(parseArchitecture(checkpoint.config), checkpoint.tensors);
    const hasher = await loadHasher();
    digests = new Map();
    for (const name of checkpoint.tensors.keys()) digests.set(name, hasher.digest(await checkpoint.readTensor(name)));
    tensors = new RpcServer({});
    tensors.addService(
      TensorServiceDefinition,
      serveFetch((name) =>
        Promise.resolve({
          bytes: masks.get(name)?.byteLength ?? checkpoint.tensor(name).bytes,
          read: async (offset, length) => {
            if (offset === 0) sent.set(name, (sent.get(name) ?? 0) + 1);
            if (withheld?.names.has(name)) await withheld.until;
            return masks.get(name)?.subarray(offset, offset + length) ?? checkpoint.readTensor(name, { offset, length });
          },
        }),
      ),
    );
    const { host, port } = await tensors.listen('127.0.0.1:0');
    tensors.setServing(true);
    tensorEndpoint = `${host}:${port}`;
  });
  afterAll(async () => {
    await tensors.shutdown({ graceMs: 1000 });
    await checkpoint.close();
  });

  async function startNode(sessionId: string): Promise<StartedNode> {
    const { process, address } = await ServiceProcess.start(['node', '--listen', '127.0.0.1:0', '--threads', '1', '--backend', 'cpu']);
    const channel = connect(address, { kind: 'control' });
    const kernel = channel.client(KernelServiceDefinition);
    const { architecture } = plan;
    await kernel.openSession({ sessionId, jobId: 'job', architecture, tensorEndpoint, compute: Compute.F32 }, CALL);
    return { process, address, channel, kernel };
  }

  beforeEach(async () => {
    [peer, follower] = await Promise.all([startNode(PEER), startNode(FOLLOWER)]);
    sent.clear();
  });
  afterEach(async () => {
    withheld = undefined;
    for (const { channel } of [peer, follower]) channel.close();
    await Promise.all([peer.process.signal('SIGKILL'), follower.process.signal('SIGTERM')]);
  });

  function describeShard(shard: PlannedShard): ShardDescriptor {
    return describeStoredShard(shard, checkpoint, digests);
  }

  const embedding = (): ShardDescriptor => describeShard(plan.embedding);
  const block = (): ShardDescriptor => describeShard(plan.blocks[0]!.shard);
  /** Masks of the projections of the block, other bits for each. */
  async function describeMasks(): Promise<MaskDescriptor[]> {
    const hasher = await loadHasher();
    return block()
      .tensors.filter(({ shape }) => shape.length === 2)
      .map(({ name, role: projection, shape: [rows = 0, columns = 0] }) => {
        const resource = `mask of ${name}`;
        const mask = Buffer.alloc(rows * Math.ceil(columns / 8), projection);
        masks.set(resource, mask);
        return { projection, resource, repaired: false, digest: hasher.digest(mask) };
      });
  }
  const fromPeer = (): ShardPeer => ({ endpoint: peer.address, sessionId: PEER });
  const bytesOf = (parts: readonly { readonly bytes: number }[]): number => parts.reduce((sum, { bytes }) => sum + bytes, 0);

  /** Loads shards, both if not told otherwise, on the peer and from it. */
  async function loadBoth(...shards: readonly ShardDescriptor[]): Promise<void> {
    for (const shard of shards.length > 0 ? shards : [embedding(), block()]) {
      await Promise.all([
        peer.kernel.loadShard({ sessionId: PEER, shard }, CALL),
        follower.kernel.loadShard({ sessionId: FOLLOWER, shard, peer: fromPeer() }, CALL),
      ]);
    }
  }

  /** The hidden states of a group after the embedding and a block, which the node has loaded. */
  async function outputOf({ address, kernel }: StartedNode, sessionId: string): Promise<Buffer> {
    await kernel.embed({ sessionId, shardId: 'embedding', groups: GROUPS }, CALL);
    for await (const _done of kernel.propagate({ sessionId, shardId: 'block/0', groupIndices: [0], streams: [] }, CALL));
    const { states } = await kernel.publishHiddenStates({ sessionId, groupIndices: [0] }, CALL);
    const channel = connect(address, { kind: 'bulk' });
    try {
      return await fetchResource(channel, states[0]!, CALL);
    } finally {
      channel.close();
    }
  }

  test('pulls everything from there, whichever of the two is told first', async () => {
    for (const shard of [embedding(), block()]) {
      const following = follower.kernel.loadShard({ sessionId: FOLLOWER, shard, peer: fromPeer() }, CALL);
      expect(await peer.kernel.loadShard({ sessionId: PEER, shard }, CALL)).toMatchObject({ peerBytes: 0 });
      expect(await following).toMatchObject({ fetchedBytes: bytesOf(shard.tensors), peerBytes: bytesOf(shard.tensors) });
    }
    expect(new Set(sent.values())).toEqual(new Set([1]));
    expect(await outputOf(follower, FOLLOWER)).toEqual(await outputOf(peer, PEER));
  });

  /** Stops the peer while it and the follower wait for these, which then are only sent to the follower. */
  async function interruptAt(late: readonly string[], signal: NodeJS.Signals): Promise<void> {
    let release: (() => void) | undefined;
    withheld = { names: new Set(late), until: new Promise((resolve) => (release = resolve)) };
    await eventually(() => Promise.resolve(late.some((name) => sent.has(name))), 'the peer waits for the orchestrator');
    // What was sent until then has long come through.
    await new Promise((resolve) => setTimeout(resolve, 200));
    process.kill(peer.process.pid, signal);
    await eventually(() => Promise.resolve(late.some((name) => sent.get(name) === 2)), 'the follower asks the orchestrator');
    release?.();
  }

  /** What the follower said when it gave the peer up. */
  function toldOfPeer(): unknown {
    const told = follower.process.output.split('\n').find((line) => line.includes('pulls the rest of a shard from the orchestrator'));
    return JSON.parse(told ?? '{}');
  }

  /** A session on the follower that pulled everything from the orchestrator. */
  async function loadAlone(): Promise<string> {
    const sessionId = 'alone';
    const { kernel } = follower;
    const { architecture } = plan;
    await kernel.openSession({ sessionId, jobId: 'other', architecture, tensorEndpoint, compute: Compute.F32 }, CALL);
    for (const shard of [embedding(), block()]) await kernel.loadShard({ sessionId, shard }, CALL);
    return sessionId;
  }

  test('pulls masks from there, whichever of the two is told first', async () => {
    const masks = await describeMasks();
    await loadBoth();
    sent.clear();
    const following = follower.kernel.applyMasks({ sessionId: FOLLOWER, shardId: 'block/0', masks, peer: fromPeer() }, CALL);
    await peer.kernel.applyMasks({ sessionId: PEER, shardId: 'block/0', masks }, CALL);
    await following;
    expect([...sent]).toEqual(masks.map(({ resource }) => [resource, 1]));
    const pruned = await outputOf(follower, FOLLOWER);
    expect(pruned).toEqual(await outputOf(peer, PEER));
    const sessionId = await loadAlone();
    expect(pruned).not.toEqual(await outputOf(follower, sessionId));
    await follower.kernel.applyMasks({ sessionId, shardId: 'block/0', masks }, CALL);
    expect(pruned).toEqual(await outputOf(follower, sessionId));
  });

  test('gets the masks that are left from the orchestrator when the peer is killed in the middle, and says so', async () => {
    const masks = await describeMasks();
    await loadBoth();
    const late = masks.slice(3).map(({ resource }) => resource);
    const interrupted = interruptAt(late, 'SIGKILL');
    const following = follower.kernel.applyMasks({ sessionId: FOLLOWER, shardId: 'block/0', masks, peer: fromPeer() }, CALL);
    void peer.kernel.applyMasks({ sessionId: PEER, shardId: 'block/0', masks }, CALL).catch(() => undefined);
    await Promise.all([following, interrupted]);
    for (const { resource } of masks.slice(0, 3)) expect(sent.get(resource)).toBe(1);
    expect(toldOfPeer()).toMatchObject({ sessionId: FOLLOWER, shardId: 'block/0/masks', peer: peer.address });
    const sessionId = await loadAlone();
    await follower.kernel.applyMasks({ sessionId, shardId: 'block/0', masks }, CALL);
    expect(await outputOf(follower, FOLLOWER)).toEqual(await outputOf(follower, sessionId));
  });

  test('is refused masks with another digest, whoever has them', async () => {
    const [first, ...others] = await describeMasks();
    await loadBoth();
    const wrong = [{ ...first!, digest: '0123456789abcdef' }, ...others];
    await expect(
      follower.kernel.applyMasks({ sessionId: FOLLOWER, shardId: 'block/0', masks: wrong, peer: fromPeer() }, CALL),
    ).rejects.toMatchObject({ reason: 'CORRUPT_DATA' });
  });

  test.each([
    ['is killed', 'SIGKILL'],
    ['freezes', 'SIGSTOP'],
  ] as const)('gets the rest from the orchestrator when the peer %s in the middle, and says so', async (_what, signal) => {
    const second = block();
    await loadBoth(embedding());
    const late = second.tensors.slice(3).map(({ name }) => name);
    const interrupted = interruptAt(late, signal);
    const loading = follower.kernel.loadShard({ sessionId: FOLLOWER, shard: second, peer: fromPeer() }, CALL);
    void peer.kernel.loadShard({ sessionId: PEER, shard: second }, CALL).catch(() => undefined);
    const [answer] = await Promise.all([loading, interrupted]);
    expect(answer).toMatchObject({ fetchedBytes: bytesOf(second.tensors), peerBytes: bytesOf(second.tensors.slice(0, 3)) });
    expect(toldOfPeer()).toMatchObject({ sessionId: FOLLOWER, shardId: 'block/0', peer: peer.address });
    expect(await outputOf(follower, FOLLOWER)).toEqual(await outputOf(follower, await loadAlone()));
  });
});

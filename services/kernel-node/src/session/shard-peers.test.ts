import { randomBytes } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { CHUNK_BYTES, loadHasher } from '@secateur/core';
import { connect, Resources, RpcServer, serveFetch, type ByteSource } from '@secateur/rpc';
import { TensorServiceDefinition } from '@secateur/proto/tensor_service';
import { TensorDescriptor } from '@secateur/proto/model';
import { loadTensors, type ShardSources } from './load-tensors.js';
import { PeerReader } from './peer-reader.js';
import { isOutOfStep, ShardPeers, type GivenUpPeer } from './shard-peers.js';
import { relayedResource, ShardRelay } from './shard-relay.js';
import { SharedVolume } from './shared-volume.js';

const NEVER = new AbortController().signal;

/** What serves bytes: the orchestrator, or a node with a session whose relay it is. */
class Endpoint {
  readonly resources = new Resources();
  readonly relay = new ShardRelay('session', this.resources);
  /** Chunks that were read of each resource. */
  readonly reads = new Map<string, number>();
  private readonly server = new RpcServer({});
  address = '';

  async start(): Promise<this> {
    this.server.addService(
      TensorServiceDefinition,
      serveFetch(async (name) => {
        const source = await this.resources.find(name);
        const read: ByteSource['read'] = (...part) => {
          this.reads.set(name, (this.reads.get(name) ?? 0) + 1);
          return source.read(...part);
        };
        return { bytes: source.bytes, read };
      }),
    );
    const { port } = await this.server.listen('127.0.0.1:0');
    this.server.setServing(true);
    this.address = `127.0.0.1:${port}`;
    return this;
  }

  async stop(): Promise<void> {
    await this.server.shutdown({ graceMs: 0 });
  }
}

/** Three tensors of more than one chunk, as the orchestrator describes them. */
const contents = [3 * CHUNK_BYTES + 5, 2 * CHUNK_BYTES, 70_000].map((bytes) => randomBytes(bytes));
const total = contents.reduce((sum, { byteLength }) => sum + byteLength, 0);
const hasher = await loadHasher();
const tensors = contents.map((content, index) =>
  TensorDescriptor.fromPartial({ resource: `t/${index}`, bytes: content.byteLength, digest: hasher.digest(content) }),
);

let orchestrator: Endpoint;
let peer: Endpoint;
let reader: PeerReader;
let peers: ShardPeers;
let givenUp: GivenUpPeer[];
beforeEach(async () => {
  [orchestrator, peer] = await Promise.all([new Endpoint().start(), new Endpoint().start()]);
  for (const [index, content] of contents.entries()) orchestrator.resources.publishBytes(`t/${index}`, content);
  reader = new PeerReader((address) => connect(address, { kind: 'bulk' }));
  peers = new ShardPeers(reader);
  givenUp = [];
});
afterEach(async () => {
  reader.close();
  await Promise.all([orchestrator.stop(), peer.stop()]);
});

function sourcesWith(address: string | undefined): ShardSources {
  return {
    volume: new SharedVolume([]),
    peer: peers.use(address === undefined ? undefined : { endpoint: address, sessionId: 'session' }, (given) => givenUp.push(given)),
    orchestrator: reader.connect(orchestrator.address),
  };
}

/** Loads all tensors as a follower of the peer; throws when a byte is wrong. */
async function follow(address: string | undefined = peer.address): ReturnType<typeof loadTensors> {
  const targets = contents.map(({ byteLength }) => Buffer.alloc(byteLength));
  const relay = new ShardRelay('follower', new Resources());
  const loaded = await loadTensors(sourcesWith(address), relay, tensors, targets, NEVER);
  for (const [index, target] of targets.entries()) expect(target.equals(contents[index]!)).toBe(true);
  expect(loaded.volume + loaded.peer + loaded.orchestrator).toBe(total);
  return loaded;
}

describe('a shard of a peer', () => {
  test('is pulled while the peer receives it, in the order of chunks, and nothing from the orchestrator', async () => {
    const memories = contents.map(({ byteLength }) => Buffer.alloc(byteLength));
    const relayed = memories.map((memory, index) => peer.relay.begin(`t/${index}`, memory));
    const following = follow();
    for (const [index, memory] of memories.entries()) {
      for (let end = CHUNK_BYTES; end < memory.byteLength + CHUNK_BYTES; end += CHUNK_BYTES) {
        await setImmediate();
        contents[index]!.copy(memory, end - CHUNK_BYTES, end - CHUNK_BYTES, end);
        relayed[index]!.advance(Math.min(end, memory.byteLength));
      }
    }
    expect(await following).toEqual({ volume: 0, peer: total, orchestrator: 0 });
    expect([...orchestrator.reads.keys()]).toEqual([]);
    expect(givenUp).toEqual([]);
  });

  test('is waited for when the peer has not begun, with any of its tensors', async () => {
    const following = follow();
    for (const [index, content] of contents.entries()) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      peer.relay.begin(`t/${index}`, content).advance(content.byteLength);
    }
    expect((await following).peer).toBe(total);
    expect(givenUp).toEqual([]);
  });

  test('comes from the orchestrator when the peer has nothing of it, and the peer is asked the next time', async () => {
    expect((await follow()).orchestrator).toBe(total);
    expect(givenUp).toMatchObject([{ peer: peer.address, error: { reason: 'NOT_FOUND' } }]);
    for (const [index, content] of contents.entries()) peer.relay.begin(`t/${index}`, content).advance(content.byteLength);
    expect((await follow()).peer).toBe(total);
  });

  test('comes from the orchestrator as far as the peer uses its memory for the next', async () => {
    const [first, ...others] = contents.map((content) => Buffer.from(content));
    peer.relay.begin('t/0', first!).advance(CHUNK_BYTES);
    for (const [index, memory] of others.entries()) peer.relay.begin(`t/${index + 1}`, memory).advance(memory.byteLength);
    const following = follow();
    while ((peer.reads.get(relayedResource('session', 't/0')) ?? 0) < 2) await setImmediate();
    peer.relay.begin('next block', first!);
    first!.fill(0);
    const loaded = await following;
    expect(loaded.orchestrator).toBeGreaterThanOrEqual(contents[0]!.byteLength);
    expect(givenUp).toMatchObject([{ error: { reason: 'FAILED_PRECONDITION' } }]);
  });

  test('comes from the orchestrator at once when the peer had it and has it no more', async () => {
    for (const [index, content] of contents.entries()) {
      peer.relay.begin(`t/${index}`, content).advance(content.byteLength);
      peer.relay.end(content);
    }
    expect((await follow()).orchestrator).toBe(total);
    // Of one that may still come it would be NOT_FOUND.
    expect(givenUp).toMatchObject([{ error: { reason: 'FAILED_PRECONDITION' } }]);
    expect(givenUp.map(isOutOfStep)).toEqual([true]);
  });

  test('comes from the orchestrator when the peer has other bytes', async () => {
    for (const [index, content] of contents.entries()) {
      const wrong = Buffer.from(content);
      wrong[0]! ^= 1;
      peer.relay.begin(`t/${index}`, wrong).advance(content.byteLength);
    }
    expect((await follow()).orchestrator).toBe(total);
    expect(givenUp).toMatchObject([{ error: { reason: 'CORRUPT_DATA' } }]);
    expect(givenUp.map(isOutOfStep)).toEqual([false]);
  });

  test('comes from the orchestrator when the peer is silent or gone, and the peer is not asked again soon', async () => {
    for (const [index, content] of contents.entries()) peer.relay.begin(`t/${index}`, content);
    expect((await follow()).orchestrator).toBe(total);
    expect(givenUp).toMatchObject([{ error: { reason: 'DEADLINE_EXCEEDED' } }]);
    for (const [index, content] of contents.entries()) peer.relay.begin(`t/${index}`, content).advance(content.byteLength);
    expect((await follow()).peer).toBe(0);
    expect(givenUp).toHaveLength(1);

    const gone = await new Endpoint().start();
    await gone.stop();
    expect((await follow(gone.address)).orchestrator).toBe(total);
    expect(givenUp).toMatchObject([{}, { peer: gone.address, error: { reason: 'UNAVAILABLE' } }]);
  }, 30_000);
});

describe('a relay', () => {
  test('serves a tensor until its memory is dropped, or it is received elsewhere', async () => {
    const [first, second] = [Buffer.alloc(8, 1), Buffer.alloc(8, 2)];
    const read = async (resource: string): Promise<Buffer> => {
      const source = await peer.resources.find(relayedResource('session', resource));
      return Buffer.from(await source.read(0, 8, NEVER, Buffer.alloc(8)));
    };
    peer.relay.begin('a', first).advance(8);
    expect(await read('a')).toEqual(first);
    peer.relay.begin('a', second).advance(8);
    expect(await read('a')).toEqual(second);
    peer.relay.end(first);
    expect(await read('a')).toEqual(second);
    peer.relay.end(second);
    await expect(read('a')).rejects.toMatchObject({ reason: 'FAILED_PRECONDITION' });
    peer.relay.begin('b', first);
    const waiting = read('b');
    peer.relay.close();
    await expect(waiting).rejects.toMatchObject({ reason: 'FAILED_PRECONDITION' });
    await expect(read('b')).rejects.toMatchObject({ reason: 'NOT_FOUND' });
  });
});

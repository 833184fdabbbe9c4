/** The rules of a kernel node's sessions, over real gRPC, with bytes pulled from a TensorService of the test's own. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { openCheckpoint, type Checkpoint } from '@secateur/checkpoint';
import { loadHasher, parseArchitecture, planModel, splitIntoGroups, type ModelPlan, type PlannedShard } from '@secateur/core';
import { KernelServiceDefinition } from '@secateur/proto/kernel_service';
import { Compute, type ShardDescriptor } from '@secateur/proto/model';
import { TensorServiceDefinition } from '@secateur/proto/tensor_service';
import { connect, RpcServer, serveFetch, type Channel, type ServiceClient } from '@secateur/rpc';
import { describeStoredShard } from '../support/describe-shard.js';
import { ServiceProcess } from '../support/cluster.js';
import { modelPath } from '../support/paths.js';

const CALL = { timeoutMs: 30_000 };

let checkpoint: Checkpoint;
let plan: ModelPlan;
let digests: Map<string, string>;
let tensors: RpcServer;
let tensorEndpoint: string;
let node: ServiceProcess;
let channel: Channel;
let kernel: ServiceClient<typeof KernelServiceDefinition>;
/** Resources the test serves with one bit flipped. */
const corrupted = new Set<string>();

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
        bytes: checkpoint.tensor(name).bytes,
        read: async (offset, length) => {
          const bytes = await checkpoint.readTensor(name, { offset, length });
          if (corrupted.has(name)) bytes[0]! ^= 1;
          return bytes;
        },
      }),
    ),
  );
  const { host, port } = await tensors.listen('127.0.0.1:0');
  tensors.setServing(true);
  tensorEndpoint = `${host}:${port}`;
  const started = await ServiceProcess.start(['node', '--listen', '127.0.0.1:0', '--threads', '1', '--memory', '64MiB']);
  node = started.process;
  channel = connect(started.address, { kind: 'control' });
  kernel = channel.client(KernelServiceDefinition);
});

afterAll(async () => {
  channel.close();
  await node.signal('SIGTERM');
  await tensors.shutdown({ graceMs: 1000 });
  await checkpoint.close();
});

function describeShard(shard: PlannedShard): ShardDescriptor {
  return describeStoredShard(shard, checkpoint, digests);
}

const block = (index: number): ShardDescriptor => describeShard(plan.blocks[index]!.shard);

describe('a session', () => {
  let sessionId: string;
  let count = 0;
  beforeEach(async () => {
    sessionId = `session-${count++}`;
    await kernel.openSession({ sessionId, jobId: 'job', architecture: plan.architecture, tensorEndpoint, compute: Compute.F32 }, CALL);
  });

  afterEach(() => kernel.closeSession({ sessionId }, CALL));

  test('opens once, and not again with another content', async () => {
    await kernel.openSession({ sessionId, jobId: 'job', architecture: plan.architecture, tensorEndpoint, compute: Compute.F32 }, CALL);
    const other = kernel.openSession(
      { sessionId, jobId: 'other', architecture: plan.architecture, tensorEndpoint, compute: Compute.F32 },
      CALL,
    );
    await expect(other).rejects.toMatchObject({ reason: 'ALREADY_EXISTS' });
  });

  test('is renewed where it is open, and not opened by that', async () => {
    const request = { jobId: 'job', architecture: plan.architecture, tensorEndpoint, compute: Compute.F32, renewOnly: true };
    await kernel.openSession({ sessionId, ...request }, CALL);
    const elsewhere = kernel.openSession({ sessionId: 'of-before-a-restart', ...request }, CALL);
    await expect(elsewhere).rejects.toMatchObject({ reason: 'NOT_FOUND', message: expect.stringMatching(/may have restarted/) });
    const use = kernel.releaseShard({ sessionId: 'of-before-a-restart', shardId: 'none' }, CALL);
    await expect(use).rejects.toMatchObject({ reason: 'NOT_FOUND' });
  });

  test('is closed when its job is opened under a later lease, and not under an earlier one', async () => {
    const { architecture } = plan;
    const open = (id: string, jobId: string, lease: number) =>
      kernel.openSession({ sessionId: id, jobId, lease, architecture, tensorEndpoint, compute: Compute.F32 }, CALL);
    const isOpen = (id: string): Promise<boolean> =>
      kernel.releaseShard({ sessionId: id, shardId: 'none' }, CALL).then(
        () => true,
        () => false,
      );
    await open('second', 'leased', 2);
    await open('first', 'leased', 1);
    await open('other', 'another', 1);
    expect(await Promise.all(['second', 'first', 'other'].map(isOpen))).toEqual([true, true, true]);
    await open('third', 'leased', 3);
    expect(await Promise.all(['second', 'first', 'other', 'third'].map(isOpen))).toEqual([false, false, true, true]);
    await Promise.all(['other', 'third'].map((id) => kernel.closeSession({ sessionId: id }, CALL)));
  });

  test('holds two blocks at most, and loading one again pulls nothing', async () => {
    expect((await kernel.loadShard({ sessionId, shard: block(0) }, CALL)).fetchedBytes).toBeGreaterThan(0);
    expect((await kernel.loadShard({ sessionId, shard: block(0) }, CALL)).fetchedBytes).toBe(0);
    await kernel.loadShard({ sessionId, shard: block(1) }, CALL);
    await expect(kernel.loadShard({ sessionId, shard: block(2) }, CALL)).rejects.toMatchObject({ reason: 'FAILED_PRECONDITION' });
    await kernel.releaseShard({ sessionId, shardId: 'block/0' }, CALL);
    await kernel.loadShard({ sessionId, shard: block(2) }, CALL);
  });

  test('refuses bytes that are not what was planned, and takes them when they are right again', async () => {
    const [first] = block(0).tensors;
    corrupted.add(first!.resource);
    await expect(kernel.loadShard({ sessionId, shard: block(0) }, CALL)).rejects.toMatchObject({
      reason: 'CORRUPT_DATA',
      message: expect.stringContaining(first!.resource),
    });
    corrupted.clear();
    await kernel.loadShard({ sessionId, shard: block(0) }, CALL);
  });

  test('refuses a descriptor whose bytes contradict its shape', async () => {
    const shard = block(0);
    shard.tensors[0]!.shape = [7];
    await expect(kernel.loadShard({ sessionId, shard }, CALL)).rejects.toMatchObject({ reason: 'INVALID_REQUEST' });
  });

  test('says what is needed and available when the memory budget is too small', async () => {
    const embedding = describeShard(plan.embedding);
    await kernel.loadShard({ sessionId, shard: embedding }, CALL);
    const samples = 8 * 32;
    const ids = new Int32Array(samples * 512);
    for (const [index, group] of splitIntoGroups(ids, samples, 512).entries()) {
      const call = kernel.embed({ sessionId, shardId: 'embedding', groups: [group] }, CALL);
      const error = await call.then(
        () => undefined,
        (reason: unknown) => reason as { reason: string; metadata: Record<string, string> },
      );
      if (error === undefined) continue;
      expect(index).toBeGreaterThan(5);
      expect(error.reason).toBe('RESOURCE_EXHAUSTED');
      expect(Number(error.metadata['neededBytes'])).toBeGreaterThan(Number(error.metadata['availableBytes']));
      return;
    }
    throw new Error('64 MiB held 96 MiB of hidden states.');
  });

  test('is gone after it is closed, with all of its memory', async () => {
    await kernel.loadShard({ sessionId, shard: block(0) }, CALL);
    const before = await kernel.describeNode({}, CALL);
    await kernel.closeSession({ sessionId }, CALL);
    await kernel.closeSession({ sessionId }, CALL);
    const after = await kernel.describeNode({}, CALL);
    expect(after.sessions).toBe(before.sessions - 1);
    expect(after.memoryUsedBytes).toBeLessThan(before.memoryUsedBytes);
    await expect(kernel.loadShard({ sessionId, shard: block(0) }, CALL)).rejects.toMatchObject({ reason: 'NOT_FOUND' });
  });
});

test('a call to a session that was never opened is NOT_FOUND', async () => {
  await expect(kernel.releaseShard({ sessionId: 'never', shardId: 'block/0' }, CALL)).rejects.toMatchObject({ reason: 'NOT_FOUND' });
});

import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { CHUNK_BYTES, loadHasher, SecateurError } from '@secateur/core';
import { connect, Resources, RpcServer, serveFetch, type ByteSource, type Channel } from '@secateur/rpc';
import { TensorServiceDefinition } from '@secateur/proto/tensor_service';
import { TensorDescriptor } from '@secateur/proto/model';
import { loadTensors, type ShardSources } from './load-tensors.js';
import { ShardRelay } from './shard-relay.js';
import { SharedVolume } from './shared-volume.js';

const RELAY = new ShardRelay('session', new Resources());
const UNTIL_STOPPED = new AbortController().signal;

let server: RpcServer;
let channel: Channel;
const sources = new Map<string, ByteSource>();

beforeEach(async () => {
  server = new RpcServer({});
  server.addService(
    TensorServiceDefinition,
    serveFetch((resource) => {
      const source = sources.get(resource);
      return source === undefined ? Promise.reject(new SecateurError('NOT_FOUND', `No ${resource}.`)) : Promise.resolve(source);
    }),
  );
  const { port } = await server.listen('127.0.0.1:0');
  channel = connect(`127.0.0.1:${port}`, { kind: 'bulk' });
});

afterEach(async () => {
  channel.close();
  await server.shutdown({ graceMs: 0 });
  sources.clear();
});

function from(roots: readonly string[] = []): ShardSources {
  return { volume: new SharedVolume(roots), peer: undefined, orchestrator: channel };
}

function publish(resource: string, content: Buffer): void {
  sources.set(resource, {
    bytes: content.byteLength,
    read: (offset, length) => Promise.resolve(content.subarray(offset, offset + length)),
  });
}

describe('loadTensors', () => {
  test('fills every target with its own tensor and checks the digests', async () => {
    const hasher = await loadHasher();
    const contents = [1, 300, 3 * CHUNK_BYTES + 5, CHUNK_BYTES, 2 * CHUNK_BYTES, 70_000].map((bytes) => randomBytes(bytes));
    const tensors = contents.map((content, index) =>
      TensorDescriptor.fromPartial({ resource: `t/${index}`, bytes: content.byteLength, digest: hasher.digest(content) }),
    );
    for (const [index, content] of contents.entries()) publish(`t/${index}`, content);
    const targets = contents.map(({ byteLength }) => Buffer.alloc(byteLength));
    await loadTensors(from(), RELAY, tensors, targets, UNTIL_STOPPED);
    for (const [index, target] of targets.entries()) expect(target.equals(contents[index]!)).toBe(true);

    const wrong = [...tensors.slice(0, 2), { ...tensors[2]!, digest: '0123456789abcdef' }];
    await expect(loadTensors(from(), RELAY, wrong, targets, UNTIL_STOPPED)).rejects.toMatchObject({
      reason: 'CORRUPT_DATA',
      message: expect.stringContaining('t/2'),
    });
  });

  test('gives up the others when one fails, and says why that one did', async () => {
    let markStopped: (() => void) | undefined;
    const stopped = new Promise<void>((resolve) => (markStopped = resolve));
    sources.set('endless', {
      bytes: CHUNK_BYTES,
      read: (_offset, _length, signal) => {
        signal.addEventListener('abort', () => markStopped?.());
        return new Promise(() => undefined);
      },
    });
    const tensors = ['endless', 'missing', 'endless'].map((resource) => TensorDescriptor.fromPartial({ resource, bytes: CHUNK_BYTES }));
    const targets = tensors.map(({ bytes }) => Buffer.alloc(bytes));
    await expect(loadTensors(from(), RELAY, tensors, targets, UNTIL_STOPPED)).rejects.toMatchObject({ reason: 'NOT_FOUND' });
    await stopped;
  });

  describe('with a volume that is shared', () => {
    const content = randomBytes(9 * CHUNK_BYTES + 17);
    const OFFSET = 5;
    let folder: string;
    let shared: string;
    let path: string;
    let tensor: TensorDescriptor;
    beforeEach(async () => {
      folder = await realpath(await mkdtemp(join(tmpdir(), 'shared-volume-')));
      shared = join(folder, 'shared');
      await mkdir(shared);
      path = join(shared, 'model.safetensors');
      await writeFile(path, Buffer.concat([Buffer.alloc(OFFSET), content]));
      const digest = (await loadHasher()).digest(content);
      tensor = TensorDescriptor.fromPartial({ resource: 't', bytes: content.byteLength, digest, path, pathOffset: OFFSET });
    });
    afterEach(() => rm(folder, { recursive: true }));

    const load = async (descriptor: TensorDescriptor, root = shared): Promise<Buffer> => {
      const target = Buffer.alloc(content.byteLength);
      await loadTensors(from([root]), RELAY, [descriptor], [target], UNTIL_STOPPED);
      return target;
    };

    test('reads there what nobody serves', async () => {
      expect((await load(tensor)).equals(content)).toBe(true);
    });

    test('stops when cancelled, and does not pull then', async () => {
      publish('t', content);
      const loading = loadTensors(from([shared]), RELAY, [tensor], [Buffer.alloc(content.byteLength)], AbortSignal.abort());
      await expect(loading).rejects.toMatchObject({ reason: 'CANCELLED' });
    });

    test('pulls what is not there, is something else, or lies outside', async () => {
      publish('t', content);
      await writeFile(join(folder, 'outside'), Buffer.concat([Buffer.alloc(OFFSET), content]));
      await symlink(join(folder, 'outside'), join(shared, 'link'));
      const truncated = join(shared, 'truncated');
      await writeFile(truncated, content.subarray(0, 100));
      for (const other of [
        { ...tensor, path: join(shared, 'missing') },
        { ...tensor, path: join(folder, 'outside') },
        { ...tensor, path: join(shared, 'link') },
        { ...tensor, path: truncated },
        { ...tensor, path: shared },
        { ...tensor, pathOffset: 0 },
        { ...tensor, path: '' },
      ]) {
        expect((await load(other)).equals(content)).toBe(true);
        sources.clear();
        await expect(load(other)).rejects.toMatchObject({ reason: 'NOT_FOUND' });
        publish('t', content);
      }
    });
  });

  test('is cancelled', async () => {
    const abort = new AbortController();
    sources.set('endless', {
      bytes: CHUNK_BYTES,
      read: () => {
        abort.abort();
        return new Promise(() => undefined);
      },
    });
    const pulling = loadTensors(
      from(),
      RELAY,
      [TensorDescriptor.fromPartial({ resource: 'endless', bytes: CHUNK_BYTES })],
      [Buffer.alloc(CHUNK_BYTES)],
      abort.signal,
    );
    await expect(pulling).rejects.toMatchObject({ reason: 'CANCELLED' });
  });
});

import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { CHUNK_BYTES, loadHasher, SecateurError } from '@secateur/core';
import { connect, RpcServer, serveFetch, type ByteSource, type Channel } from '@secateur/rpc';
import { TensorServiceDefinition } from '@secateur/proto/tensor_service';
import { pullTensors } from './pull-tensors.js';

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

function publish(resource: string, content: Buffer): void {
  sources.set(resource, {
    bytes: content.byteLength,
    read: (offset, length) => Promise.resolve(content.subarray(offset, offset + length)),
  });
}

describe('pullTensors', () => {
  test('fills every target with its own tensor and checks the digests', async () => {
    const hasher = await loadHasher();
    const contents = [1, 300, 3 * CHUNK_BYTES + 5, CHUNK_BYTES, 2 * CHUNK_BYTES, 70_000].map((bytes) => randomBytes(bytes));
    const tensors = contents.map((content, index) => ({
      resource: `t/${index}`,
      bytes: content.byteLength,
      digest: hasher.digest(content),
    }));
    for (const [index, content] of contents.entries()) publish(`t/${index}`, content);
    const targets = contents.map(({ byteLength }) => Buffer.alloc(byteLength));
    await pullTensors(channel, tensors, targets, UNTIL_STOPPED);
    for (const [index, target] of targets.entries()) expect(target.equals(contents[index]!)).toBe(true);

    const wrong = [...tensors.slice(0, 2), { ...tensors[2]!, digest: '0123456789abcdef' }];
    await expect(pullTensors(channel, wrong, targets, UNTIL_STOPPED)).rejects.toMatchObject({
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
    const tensors = ['endless', 'missing', 'endless'].map((resource) => ({ resource, bytes: CHUNK_BYTES }));
    const targets = tensors.map(({ bytes }) => Buffer.alloc(bytes));
    await expect(pullTensors(channel, tensors, targets, UNTIL_STOPPED)).rejects.toMatchObject({ reason: 'NOT_FOUND' });
    await stopped;
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
    const pulling = pullTensors(channel, [{ resource: 'endless', bytes: CHUNK_BYTES }], [Buffer.alloc(CHUNK_BYTES)], abort.signal);
    await expect(pulling).rejects.toMatchObject({ reason: 'CANCELLED' });
  });
});

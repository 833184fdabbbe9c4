import { randomBytes } from 'node:crypto';
import { afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { CHUNK_BYTES, loadHasher, type Hasher } from '@secateur/core';
import { TensorServiceDefinition, type FetchResponse } from '@secateur/proto/tensor_service';
import { startProxy, startServer, type TestServer } from '../test/support.js';
import { ANYBODY } from './definition.js';
import { connect, fetchResource, fetchResourceInto, serveFetch, type ByteSource, type Channel } from './index.js';

const TIMEOUT = { timeoutMs: 20_000 };

let hasher: Hasher;
const channels: Channel[] = [];

beforeAll(async () => {
  hasher = await loadHasher();
});

afterEach(() => {
  for (const channel of channels.splice(0)) channel.close();
});

function open(address: string): Channel {
  const channel = connect(address, { kind: 'bulk' });
  channels.push(channel);
  return channel;
}

function sourceOf(content: Uint8Array): ByteSource {
  return { bytes: content.byteLength, read: (offset, length) => Promise.resolve(content.subarray(offset, offset + length)) };
}

function serve(content: Uint8Array): Promise<TestServer> {
  return startServer(
    TensorServiceDefinition,
    serveFetch(() => Promise.resolve(sourceOf(content))),
  );
}

/** A service that answers with exactly these chunks. */
function serveChunks(chunks: (offset: number) => Iterable<FetchResponse>): Promise<TestServer> {
  return startServer(TensorServiceDefinition, {
    async *fetch({ offset }) {
      yield* chunks(offset);
    },
  });
}

function chunkAt(content: Uint8Array, offset: number): FetchResponse {
  const data = content.subarray(offset, offset + CHUNK_BYTES);
  return { offset, data, checksum: hasher.checksum(data) };
}

describe('fetch', () => {
  test.each([0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES + 17])('brings %d bytes as they are', async (bytes) => {
    const content = randomBytes(bytes);
    await using server = await serve(content);
    const descriptor = { resource: 'r', bytes, digest: hasher.digest(content) };
    expect((await fetchResource(open(server.address), descriptor, TIMEOUT)).equals(content)).toBe(true);
  });

  test('brings what a source reads into the room it is given, every chunk its own', async () => {
    const content = randomBytes(11 * CHUNK_BYTES + 17);
    const source: ByteSource = {
      bytes: content.byteLength,
      read: async (offset, _length, _signal, room) => {
        await new Promise((resolve) => setTimeout(resolve, (offset / CHUNK_BYTES) % 2));
        content.copy(room, 0, offset, offset + room.byteLength);
        return room;
      },
    };
    await using server = await startServer(
      TensorServiceDefinition,
      serveFetch(() => Promise.resolve(source)),
    );
    const target = Buffer.alloc(content.byteLength, 0xff);
    const descriptor = { resource: 'r', bytes: content.byteLength, digest: hasher.digest(content) };
    await fetchResourceInto(open(server.address), descriptor, target, TIMEOUT);
    expect(target.equals(content)).toBe(true);
  });

  test('goes on where the connection broke and reads no chunk from the beginning again', async () => {
    const content = randomBytes(24 * CHUNK_BYTES);
    const starts: number[] = [];
    const service = serveFetch(() => Promise.resolve(sourceOf(content)));
    await using server = await startServer(TensorServiceDefinition, {
      fetch: (request, context) => {
        starts.push(request.offset);
        return service.fetch(request, context);
      },
    });
    await using proxy = await startProxy(server.address);
    const cuts = [6.5 * CHUNK_BYTES, 15.5 * CHUNK_BYTES];
    proxy.onForward = (bytes) => {
      if (bytes < (cuts[0] ?? Infinity)) return;
      cuts.shift();
      proxy.cut();
    };
    const descriptor = { resource: 'r', bytes: content.byteLength, digest: hasher.digest(content) };
    const fetched = await fetchResource(open(proxy.address), descriptor, TIMEOUT);
    expect(fetched.equals(content)).toBe(true);
    expect(starts).toHaveLength(3);
    expect(starts[0]).toBe(0);
    expect(starts[1]).toBeGreaterThanOrEqual(CHUNK_BYTES);
    expect(starts[2]).toBeGreaterThan(starts[1]!);
  });

  test('waits no longer for a source that is gone than it is told to', async () => {
    const content = randomBytes(24 * CHUNK_BYTES);
    await using server = await serve(content);
    const proxy = await startProxy(server.address);
    let gone: PromiseLike<void> | undefined;
    proxy.onForward = (bytes) => {
      if (bytes > 3 * CHUNK_BYTES) gone ??= proxy[Symbol.asyncDispose]();
    };
    const started = performance.now();
    const fetching = fetchResource(
      open(proxy.address),
      { resource: 'r', bytes: content.byteLength },
      { ...TIMEOUT, reconnectTimeoutMs: 100 },
    );
    await expect(fetching).rejects.toMatchObject({ reason: 'UNAVAILABLE' });
    expect(performance.now() - started).toBeLessThan(TIMEOUT.timeoutMs / 2);
    await gone;
  });

  test('gives up after three resumed transfers', async () => {
    const content = randomBytes(4 * CHUNK_BYTES);
    await using server = await serve(content);
    await using proxy = await startProxy(server.address);
    let cuts = 0;
    let last = 0;
    proxy.onForward = (bytes) => {
      if (bytes - last < 1_000) return;
      last = bytes;
      cuts += 1;
      proxy.cut();
    };
    const fetching = fetchResource(open(proxy.address), { resource: 'r', bytes: content.byteLength }, TIMEOUT);
    await expect(fetching).rejects.toMatchObject({ reason: 'UNAVAILABLE' });
    expect(cuts).toBe(4);
  });

  test('asks again for a damaged chunk, but not for ever', async () => {
    const content = randomBytes(3 * CHUNK_BYTES);
    let damages = 1;
    await using server = await serveChunks(function* (start) {
      for (let offset = start; offset < content.byteLength; offset += CHUNK_BYTES) {
        const chunk = chunkAt(content, offset);
        if (offset === CHUNK_BYTES && damages-- > 0) chunk.data = randomBytes(chunk.data.byteLength);
        yield chunk;
      }
    });
    const descriptor = { resource: 'weights', bytes: content.byteLength };
    expect((await fetchResource(open(server.address), descriptor, TIMEOUT)).equals(content)).toBe(true);
    damages = 10;
    await expect(fetchResource(open(server.address), descriptor, TIMEOUT)).rejects.toMatchObject({
      reason: 'CORRUPT_DATA',
      message: 'Resource weights is damaged: the chunk at offset 1048576 does not match its checksum.',
    });
  });

  test.each([
    ['once', 1],
    ['always', Infinity],
  ])('notices that a source reads %s other bytes than it was summed up for', async (_how, times) => {
    const content = randomBytes(2 * CHUNK_BYTES + 17);
    const checksums = Buffer.concat(
      [0, 1, 2].map((index) => hasher.checksum(content.subarray(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES))),
    );
    let damages = times;
    const source: ByteSource = {
      bytes: content.byteLength,
      checksums,
      read: (offset, _length, _signal, room) => {
        content.copy(room, 0, offset, offset + room.byteLength);
        if (offset === 2 * CHUNK_BYTES && damages-- > 0) room[16]! ^= 1;
        return Promise.resolve(room);
      },
    };
    await using server = await startServer(
      TensorServiceDefinition,
      serveFetch(() => Promise.resolve(source)),
    );
    const fetching = fetchResource(open(server.address), { resource: 'weights', bytes: content.byteLength }, TIMEOUT);
    if (times === 1) expect((await fetching).equals(content)).toBe(true);
    else {
      await expect(fetching).rejects.toMatchObject({
        reason: 'CORRUPT_DATA',
        message: 'Resource weights is damaged: the chunk at offset 2097152 does not match its checksum.',
      });
    }
  });

  test('sends the checksums that a source knows', async () => {
    const content = randomBytes(CHUNK_BYTES + 1);
    const checksums = randomBytes(16);
    const service = serveFetch(() => Promise.resolve({ ...sourceOf(content), checksums }));
    await using server = await startServer(TensorServiceDefinition, service);
    const sent: Uint8Array[] = [];
    const client = open(server.address).client(TensorServiceDefinition);
    for await (const { checksum } of client.fetch({ resource: 'r' }, TIMEOUT)) sent.push(checksum);
    expect(Buffer.concat(sent).equals(checksums)).toBe(true);
  });

  test("checks what the caller's own copy made of a chunk", async () => {
    const content = randomBytes(2 * CHUNK_BYTES + 17);
    await using server = await serve(content);
    const descriptor = { resource: 'r', bytes: content.byteLength, digest: hasher.digest(content) };
    let spoilt = 1;
    const moveWithChecksum = (target: Uint8Array, chunk: Uint8Array): Uint8Array => {
      target.set(chunk);
      if (chunk.byteLength === 17 && spoilt-- > 0) target[16]! ^= 1;
      return hasher.checksum(target);
    };
    const fetch = (): Promise<Buffer> => fetchResource(open(server.address), descriptor, { ...TIMEOUT, moveWithChecksum });
    expect((await fetch()).equals(content)).toBe(true);
    expect(spoilt).toBe(-1);
    spoilt = Infinity;
    await expect(fetch()).rejects.toMatchObject({ reason: 'CORRUPT_DATA' });
  });

  test('refuses a resource whose digest is another', async () => {
    const content = randomBytes(100);
    await using server = await serve(content);
    const descriptor = { resource: 'weights', bytes: 100, digest: hasher.digest(randomBytes(100)) };
    await expect(fetchResource(open(server.address), descriptor, TIMEOUT)).rejects.toMatchObject({
      reason: 'CORRUPT_DATA',
      message: expect.stringContaining('its digest is'),
    });
  });

  test.each([
    ['more bytes than declared', 2 * CHUNK_BYTES + 1],
    ['fewer bytes than declared', 2 * CHUNK_BYTES - 1],
    ['one chunk more than declared', 3 * CHUNK_BYTES],
    ['one chunk less than declared', CHUNK_BYTES],
  ])('refuses a source that sends %s', async (_what, served) => {
    await using server = await serve(randomBytes(served));
    const fetching = fetchResource(open(server.address), { resource: 'r', bytes: 2 * CHUNK_BYTES }, TIMEOUT);
    await expect(fetching).rejects.toMatchObject({ reason: expect.stringMatching(/CORRUPT_DATA|INVALID_REQUEST/) });
  });

  test('refuses chunks out of order', async () => {
    const content = randomBytes(2 * CHUNK_BYTES);
    await using server = await serveChunks(() => [chunkAt(content, CHUNK_BYTES), chunkAt(content, 0)]);
    const fetching = fetchResource(open(server.address), { resource: 'r', bytes: content.byteLength }, TIMEOUT);
    await expect(fetching).rejects.toMatchObject({ reason: 'CORRUPT_DATA' });
  });

  test.each([1, CHUNK_BYTES - 1, 4 * CHUNK_BYTES])('does not serve from offset %d', async (offset) => {
    await using server = await serve(randomBytes(2 * CHUNK_BYTES));
    const call = open(server.address).client(TensorServiceDefinition).fetch({ resource: 'r', offset }, TIMEOUT);
    await expect(call.next()).rejects.toMatchObject({ reason: 'INVALID_REQUEST', violations: [{ field: 'offset' }] });
  });

  test('leaves a peer that is connected and silent', async () => {
    const content = randomBytes(24 * CHUNK_BYTES);
    await using server = await serve(content);
    await using proxy = await startProxy(server.address);
    proxy.onForward = (bytes) => {
      if (bytes > 2 * CHUNK_BYTES) proxy.freeze();
    };
    const options = { ...TIMEOUT, idleTimeoutMs: 300 };
    const fetching = fetchResource(open(proxy.address), { resource: 'r', bytes: content.byteLength }, options);
    await expect(fetching).rejects.toMatchObject({ reason: 'DEADLINE_EXCEEDED' });
  });

  test('is cancelled at once, also between attempts', async () => {
    const content = randomBytes(24 * CHUNK_BYTES);
    const server = await serve(content);
    await using proxy = await startProxy(server.address);
    const abort = new AbortController();
    proxy.onForward = (bytes) => {
      if (bytes < 2 * CHUNK_BYTES) return;
      void server[Symbol.asyncDispose]();
      proxy.cut();
      setTimeout(() => abort.abort(), 300);
    };
    const started = performance.now();
    const options = { ...TIMEOUT, signal: abort.signal };
    await expect(fetchResource(open(proxy.address), { resource: 'r', bytes: content.byteLength }, options)).rejects.toMatchObject({
      reason: 'CANCELLED',
    });
    expect(performance.now() - started).toBeLessThan(5_000);
  });

  test('reads one chunk ahead of what is being sent', async () => {
    const content = randomBytes(3 * CHUNK_BYTES);
    const reads: number[] = [];
    const service = serveFetch(() =>
      Promise.resolve({
        bytes: content.byteLength,
        read: (offset: number, length: number) => {
          reads.push(offset);
          return Promise.resolve(content.subarray(offset, offset + length));
        },
      }),
    );
    const context = { signal: new AbortController().signal, peer: '', caller: ANYBODY, method: '', deadline: new Date() };
    const chunks = service.fetch({ resource: 'r', offset: 0 }, context)[Symbol.asyncIterator]();
    await chunks.next();
    expect(reads).toEqual([0, CHUNK_BYTES]);
  });
});

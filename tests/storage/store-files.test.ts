/** Files of a store are read by ranges, through broken connections, and never as a mixture of two versions. */
import { randomBytes } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { openCheckpoint, openInput, resolveInsideRoots, scanTensors } from '@secateur/checkpoint';
import { modelPath } from '../support/paths.js';
import { StoreServer } from '../support/store-server.js';

let store: StoreServer;
const earlier = { ...process.env };
beforeAll(async () => {
  store = await StoreServer.start();
  Object.assign(process.env, store.environment);
});
afterAll(async () => {
  process.env = earlier;
  await store[Symbol.asyncDispose]();
});
afterEach(() => {
  store.intervene = () => undefined;
  store.requests.length = 0;
});

describe('a file of a store', () => {
  const content = randomBytes((21 << 20) + 12_345);
  const url = (): string => store.url('file.bin');
  beforeAll(() => store.put('file.bin', content));

  const read = async (position: number, length: number): Promise<Buffer> => {
    const file = await openInput(url());
    const target = Buffer.alloc(length);
    await file.readInto(target, position);
    return target;
  };

  test('is read at any position, in requests that are neither many nor large', async () => {
    expect((await read(0, content.byteLength)).equals(content)).toBe(true);
    expect(store.requests.filter(({ method }) => method === 'GET').map(({ range }) => range)).toEqual([
      'bytes=0-8388607',
      'bytes=8388608-16777215',
      `bytes=16777216-${content.byteLength - 1}`,
    ]);
    store.requests.length = 0;
    const file = await openInput(url());
    for (let position = 0; position < content.byteLength; position += 1 << 20) {
      const part = Buffer.alloc(Math.min(1 << 20, content.byteLength - position));
      await file.readInto(part, position);
      expect(part.equals(content.subarray(position, position + part.byteLength))).toBe(true);
    }
    expect(store.requests).toHaveLength(7);
    expect((await read((4 << 20) - 3, 7)).equals(content.subarray((4 << 20) - 3, (4 << 20) + 4))).toBe(true);
    await expect(read(content.byteLength - 1, 2)).rejects.toMatchObject({ message: expect.stringContaining('it ends at byte') });
  });

  test('is read on where a connection broke, and after moments of weakness', async () => {
    let broken = 0;
    store.intervene = ({ method }, exchange) => {
      if (method !== 'GET' || ++broken > 6) return;
      if (broken % 2 === 0) exchange.fail(503, 'SlowDown');
      else exchange.cutAfter(1_000_000);
    };
    expect((await read(5, 20 << 20)).equals(content.subarray(5, (20 << 20) + 5))).toBe(true);
    expect(broken).toBeGreaterThan(6);
  });

  test('that is replaced while it is open is an error that names it', async () => {
    await store.put('changing.bin', content.subarray(0, 100));
    const file = await openInput(store.url('changing.bin'));
    await store.put('changing.bin', content.subarray(100, 200));
    await expect(file.readInto(Buffer.alloc(100), 0)).rejects.toMatchObject({
      reason: 'FAILED_PRECONDITION',
      message: expect.stringContaining(`${store.url('changing.bin')}: it has changed while it was in use`),
    });
  });

  test('that is not there, or may not be read, is an error that names it and tells no secret', async () => {
    await expect(openInput(store.url('missing'))).rejects.toMatchObject({
      reason: 'NOT_FOUND',
      message: `Cannot read ${store.url('missing')}: it does not exist (NoSuchKey, 404).`,
    });
    await expect(openInput('s3://secateur-test-nowhere/missing')).rejects.toMatchObject({
      reason: 'NOT_FOUND',
      message: 'Cannot read s3://secateur-test-nowhere/missing: the bucket does not exist (NoSuchBucket, 404).',
    });
    store.intervene = (_request, exchange) => exchange.fail(403, 'AccessDenied');
    const error: unknown = await openInput(url()).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ reason: 'FAILED_PRECONDITION', message: expect.stringContaining('permission is denied by the store') });
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toMatch(
      new RegExp(`${Object.values(store.keys).join('|')}|Signature`),
    );
  });
});

test('URLs lie inside roots by whole parts, and dots are no parts', async () => {
  const roots = ['/models', 's3://models/team'];
  expect(await resolveInsideRoots('s3://models/team/a/', roots)).toBe('s3://models/team/a');
  for (const url of [
    's3://models/teams',
    's3://models',
    's3://other/team/a',
    's3://models/team/../other',
    's3://models/team//a',
    's3://models/team/./a',
    's3://MODELS/team',
    's3:///team',
    's3://models/team/a\\..\\b',
    's3://models/team/a\n',
    'S3://models/team/a',
  ]) {
    await expect(resolveInsideRoots(url, roots)).rejects.toMatchObject({ reason: 'PATH_NOT_ALLOWED' });
  }
  await expect(resolveInsideRoots('s3://models/a', ['/', '/models'])).rejects.toMatchObject({ reason: 'PATH_NOT_ALLOWED' });
  await expect(resolveInsideRoots('/models/team/a', ['s3://models'])).rejects.toMatchObject({ reason: 'PATH_NOT_ALLOWED' });
});

describe('a checkpoint in a store', () => {
  test('is scanned as one in files is, with threads or without', async () => {
    const model = modelPath('books-opt');
    await store.putFolder(model, 'model');
    const scan = async (location: string, threads: number): Promise<object> => {
      await using checkpoint = await openCheckpoint(location);
      return [...(await scanTensors(checkpoint, checkpoint.tensors.keys(), { threads }))];
    };
    const expected = await scan(model, 1);
    for (const threads of [1, 3]) expect(await scan(store.url('model'), threads)).toEqual(expected);
  });
});

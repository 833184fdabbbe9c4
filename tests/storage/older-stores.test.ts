/** Stores that refuse the newer checksums are written to with the one that all of them know. */
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, jest, test } from '@jest/globals';
import { withTemporaryFolder } from '../support/paths.js';
import { StoreServer, type Intervene } from '../support/store-server.js';

let store: StoreServer;
const earlier = { ...process.env };
beforeAll(async () => {
  store = await StoreServer.start();
  Object.assign(process.env, store.environment);
});
afterEach(() => {
  store.intervene = () => undefined;
});
afterAll(async () => {
  process.env = earlier;
  await store[Symbol.asyncDispose]();
});

/** As older stores do. */
const refuseChecksums: Intervene = ({ method, headers }, exchange) => {
  const isNewer = Object.keys(headers).some((name) => /^x-amz-(sdk-)?checksum-(?!mode)/.test(name));
  if (isNewer || exchange.body.includes('<Checksum')) exchange.fail(501, 'NotImplemented');
  else if (method === 'PUT' && headers['content-md5'] === undefined) exchange.fail(400, 'InvalidDigest');
};

test('newer checksums are left out where the AWS tools leave them out, and their refusal says so', () =>
  withTemporaryFolder(async (folder) => {
    const names = ['small.bin', 'large.bin', 'last.json'];
    const contents = [randomBytes(1000), randomBytes((17 << 20) + 3), Buffer.from('{}')];
    for (const [index, name] of names.entries()) await writeFile(join(folder, name), contents[index]!);
    const send = async (): Promise<void> => {
      // The settings are read once in a process.
      jest.resetModules();
      const { StoreOutput } = await import('@secateur/checkpoint');
      const output = await StoreOutput.open(store.url('older'));
      await output.send({ folder, names, owner: 'a', record: join(folder, 'uploads.jsonl') });
    };
    store.intervene = refuseChecksums;
    await expect(send()).rejects.toMatchObject({
      reason: 'FAILED_PRECONDITION',
      message: expect.stringContaining('set AWS_REQUEST_CHECKSUM_CALCULATION to when_required'),
    });
    // The last part of an upload that was begun with checksums is missing.
    store.intervene = ({ partNumber }, exchange) => {
      if (partNumber === '2') exchange.fail(403, 'AccessDenied');
    };
    await expect(send()).rejects.toMatchObject({ message: expect.stringContaining('permission is denied') });
    process.env['AWS_REQUEST_CHECKSUM_CALCULATION'] = 'when_required';
    store.intervene = () => undefined;
    await send();
    await store.remove('older/small.bin');
    await store.remove('older/large.bin');
    await store.remove('older/last.json');
    await writeFile(join(folder, 'uploads.jsonl'), '');
    store.intervene = refuseChecksums;
    await send();
    for (const [index, name] of names.entries()) expect((await store.get(`older/${name}`)).equals(contents[index]!)).toBe(true);
    expect(await readFile(join(folder, 'uploads.jsonl'), 'utf8')).not.toContain('checksum');
  }));

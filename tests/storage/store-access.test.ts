/** A store that checks signatures and policies lets in who may, and tells the others what is wrong. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { runCommand } from '../support/command.js';
import { fixturePath, modelPath, temporaryFolder, type TemporaryFolder } from '../support/paths.js';
import { accessProblem } from '../support/store-backend.js';
import { StoreServer } from '../support/store-server.js';

const MODEL = 'books-opt';
const describeWithAccess = accessProblem === undefined ? describe : describe.skip;
const suffix = accessProblem === undefined ? '' : ` (skipped: ${accessProblem})`;

describeWithAccess(`a store that checks who asks${suffix}`, () => {
  let store: StoreServer;
  let folder: TemporaryFolder;
  beforeAll(async () => {
    [store, folder] = await Promise.all([StoreServer.start(), temporaryFolder()]);
    for (const prefix of ['open', 'unreadable', 'unlisted']) await store.putFolder(modelPath(MODEL), prefix);
    await store.put('data/calibration.safetensors', await readFile(fixturePath('calibration', `${MODEL}-calibration.safetensors`)));
    await store.deny({ unreadable: 's3:GetObject', unlisted: 's3:ListBucket', sealed: 's3:PutObject' });
  });
  afterAll(async () => {
    await store.allow();
    await store[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  });

  const run = async (args: readonly string[], changes: Readonly<Record<string, string>> = {}): Promise<[number | null, string]> => {
    const { exitCode, stderr } = await runCommand(args, undefined, { ...store.environment, ...changes });
    return [exitCode, stderr];
  };
  const inspect = (url: string, changes?: Readonly<Record<string, string>>) => run(['inspect', url], changes);
  const prune = (from: string, to: string, changes?: Readonly<Record<string, string>>) => {
    const data = ['--calibration', store.url('data/calibration.safetensors'), '--samples', '2'];
    const places = ['--model', from, '--out', to, '--staging', join(folder.path, 'staging')];
    return run(['prune', ...places, ...data, '--sparsity', '0.5', '--nodes', '1'], changes);
  };
  const told = (message: string) => [1, expect.stringContaining(message)];

  test('who may, reads and writes', async () => {
    expect(await prune(store.url('open'), store.url('pruned'))).toEqual([0, expect.anything()]);
    expect(await inspect(store.url('pruned'))).toEqual([0, expect.anything()]);
  });

  test('a key or a secret that is wrong is told, and neither is shown', async () => {
    const strange = { AWS_ACCESS_KEY_ID: 'STRANGER' };
    const wrong = { AWS_SECRET_ACCESS_KEY: 'not-the-secret' };
    const toOther = (url: string, changes: Readonly<Record<string, string>>) => prune(url, store.url('other'), changes);
    for (const tried of [inspect, toOther]) {
      const unknown = await tried(store.url('open'), strange);
      expect(unknown).toEqual(told('the store does not know the access key; check AWS_ACCESS_KEY_ID'));
      const mismatched = await tried(store.url('open'), wrong);
      expect(mismatched).toEqual(told('the secret is not that of the access key; check AWS_SECRET_ACCESS_KEY'));
      expect([unknown, mismatched].join()).not.toMatch(/STRANGER|not-the-secret/);
    }
  });

  test('what a policy denies is told by its name', async () => {
    expect(await inspect(store.url('unreadable'))).toEqual(
      told(`Cannot read ${store.url('unreadable/config.json')}: permission is denied by the store`),
    );
    expect(await prune(store.url('unlisted'), store.url('other'))).toEqual(
      told(`Cannot list ${store.url('unlisted')}: permission is denied by the store`),
    );
    expect(await prune(store.url('open'), store.url('sealed/out'))).toEqual(
      told(`Cannot write ${store.url('sealed/out/config.json')}: permission is denied by the store`),
    );
    expect(await store.list('sealed')).toEqual([]);
  });

  test('a bucket that is not there is told, to read and to write', async () => {
    const missing = 's3://secateur-test-nowhere/model';
    expect(await inspect(missing)).toEqual(told('the bucket does not exist (NoSuchBucket, 404)'));
    expect(await prune(store.url('open'), missing)).toEqual(told('the bucket does not exist'));
  });
});

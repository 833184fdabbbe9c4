import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { expectFailure, modelPath, withTemporaryFolder, writeShardedCheckpoint } from '../../test/support.js';
import { CheckpointWriter } from './checkpoint-writer.js';
import { openCheckpoint, type Checkpoint } from './checkpoint.js';

/** A sharded checkpoint and an empty folder to write to. */
async function withSharded(use: (source: Checkpoint, content: Map<string, Buffer>, output: string) => Promise<void>): Promise<void> {
  await withTemporaryFolder(async (folder) => {
    const [input, output] = [join(folder, 'in'), join(folder, 'out')];
    await mkdir(input);
    await mkdir(output);
    const content = await writeShardedCheckpoint(input);
    await using source = await openCheckpoint(input);
    await use(source, content, output);
  });
}

async function expectSameFiles(output: string, content: ReadonlyMap<string, Buffer>): Promise<void> {
  expect((await readdir(output)).sort()).toEqual([...content.keys()].sort());
  for (const [name, bytes] of content) expect((await readFile(join(output, name))).equals(bytes)).toBe(true);
}

describe('CheckpointWriter', () => {
  test('copies a sharded checkpoint byte for byte', () =>
    withSharded(async (source, content, output) => {
      const writer = await CheckpointWriter.create(source, output);
      const progress: number[] = [];
      await writer.copyRemaining({ onProgress: (done, total) => progress.push(done, total) });
      expect(progress.slice(-2)).toEqual([34, 34]);
      await writer.finish();
      await writer.close();
      await expectSameFiles(output, content);
    }));

  test.each(['books-llama', 'books-opt', 'books-qwen2'] as const)('copies %s byte for byte', (model) =>
    withTemporaryFolder(async (output) => {
      await using source = await openCheckpoint(modelPath(model));
      const writer = await CheckpointWriter.create(source, output);
      await writer.copyRemaining();
      await writer.finish();
      await writer.close();
      const content = new Map<string, Buffer>();
      for (const name of await readdir(modelPath(model))) content.set(name, await readFile(join(modelPath(model), name)));
      await expectSameFiles(output, content);
    }),
  );

  test('changes only the tensors that were written', () =>
    withSharded(async (source, _, output) => {
      const writer = await CheckpointWriter.create(source, output);
      await expectFailure(() => writer.readTensor('layer.0.weight', 0, 6), 'FAILED_PRECONDITION', /not written yet/);
      await writer.writeTensor('layer.0.weight', Buffer.from([9, 8, 7, 6, 5, 4]));
      expect([...(await writer.readTensor('layer.0.weight', 2, 3))]).toEqual([7, 6, 5]);
      await expectFailure(() => writer.readTensor('layer.0.weight', 4, 3), 'INVALID_REQUEST', /which has 6/);
      await expectFailure(() => writer.finish(), 'FAILED_PRECONDITION', /model-00001.*"layer.1.weight" are not written/);
      await writer.copyRemaining();
      await writer.finish();
      await writer.close();
      await using result = await openCheckpoint(output);
      expect([...result.tensors.keys()]).toEqual([...source.tensors.keys()]);
      for (const name of source.tensors.keys()) {
        const [before, after] = [await source.readTensor(name), await result.readTensor(name)];
        expect([...after]).toEqual(name === 'layer.0.weight' ? [9, 8, 7, 6, 5, 4] : [...before]);
      }
    }));

  test('goes on after a stop in the middle, with half-written tensors written anew', () =>
    withSharded(async (source, content, output) => {
      const first = await CheckpointWriter.create(source, output);
      await first.writeTensor('layer.0.weight', await source.readTensor('layer.0.weight'));
      await first.sync();
      await first.writeTensor('layer.2.weight', Buffer.from('torn'));
      await first.close();
      const second = await CheckpointWriter.resume(source, output, ['layer.0.weight']);
      await expectFailure(() => second.writeTensor('layer.0.weight', Buffer.alloc(6)), 'INTERNAL', /written twice/);
      await second.writeTensor('layer.2.weight', await source.readTensor('layer.2.weight'));
      await second.copyRemaining();
      await second.finish();
      await second.close();
      await expectSameFiles(output, content);
    }));

  test('refuses to go on with files of another checkpoint', () =>
    withSharded(async (source, _, output) => {
      await expectFailure(() => CheckpointWriter.resume(source, output, []), 'NOT_FOUND', /model-00001/);
      await (await CheckpointWriter.create(source, output)).close();
      await expectFailure(() => CheckpointWriter.create(source, output), 'ALREADY_EXISTS', /model-00001/);
      await expectFailure(() => CheckpointWriter.resume(source, output, ['other']), 'NOT_FOUND', /no tensor "other"/);
      const path = join(output, 'model-00001-of-00002.safetensors');
      const changed = await readFile(path);
      changed[20] = 0x20;
      await writeFile(path, changed);
      await expectFailure(() => CheckpointWriter.resume(source, output, []), 'FAILED_PRECONDITION', /header belongs to another model/);
    }));

  test('stops copying when cancelled', () =>
    withSharded(async (source, _, output) => {
      const writer = await CheckpointWriter.create(source, output);
      const cancellation = new AbortController();
      const copying = writer.copyRemaining({ signal: cancellation.signal, onProgress: () => cancellation.abort() });
      await expectFailure(() => copying, 'CANCELLED', /./);
      await expectFailure(() => writer.finish(), 'FAILED_PRECONDITION', /not complete/);
      await writer.close();
    }));
});

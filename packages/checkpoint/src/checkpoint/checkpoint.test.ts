import { mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import {
  expectFailure,
  modelPath,
  safetensorsBytes,
  withTemporaryFolder,
  writeShardedCheckpoint,
  writeSingleCheckpoint,
} from '../../test/support.js';
import { openCheckpoint } from './checkpoint.js';

const FIRST = 'model-00001-of-00002.safetensors';
const SECOND = 'model-00002-of-00002.safetensors';
const INDEX = 'model.safetensors.index.json';
const small = safetensorsBytes({ a: { dtype: 'U8', shape: [2], data_offsets: [0, 2] } }, Buffer.from([7, 8]));

describe('a sharded checkpoint', () => {
  test('is opened with all its tensors and companion files', () =>
    withTemporaryFolder(async (folder) => {
      await writeShardedCheckpoint(folder);
      await writeFile(join(folder, 'pytorch_model.bin'), 'weights in another format');
      await writeFile(join(folder, 'pytorch_model.bin.index.json'), '{}');
      // Of an output that is pruned again, and names that are used while one is made.
      for (const name of ['secateur.json', 'layer_budget.json', 'journal.jsonl', 'owner.json', 'uploads.jsonl'])
        await writeFile(join(folder, name), '{}');
      await writeFile(join(folder, '.gitattributes'), '');
      await mkdir(join(folder, 'original'));
      await using checkpoint = await openCheckpoint(folder);
      expect(checkpoint.directory).toBe(folder);
      expect(checkpoint.config).toEqual({ model_type: 'test' });
      expect(checkpoint.files.map(({ name }) => name)).toEqual([FIRST, SECOND]);
      expect(checkpoint.companionFiles).toEqual(['LICENSE', 'README.md', 'config.json', 'generation_config.json', INDEX]);
      expect(
        [...checkpoint.tensors.values()].map(({ name, file, dtype, dataType, shape, bytes }) => [
          name,
          file,
          dtype,
          dataType,
          shape,
          bytes,
        ]),
      ).toEqual([
        ['layer.1.weight', FIRST, 'F32', 1, [2, 2], 16],
        ['layer.0.weight', FIRST, 'BF16', 3, [3], 6],
        ['layer.2.weight', SECOND, 'F16', 2, [2, 1], 4],
        ['position_ids', SECOND, 'I64', 0, [1, 1], 8],
        ['empty', SECOND, 'F32', 1, [0, 4], 0],
      ]);
      expect([...(await checkpoint.readTensor('layer.0.weight'))]).toEqual([1, 2, 3, 4, 5, 6]);
      expect([...(await checkpoint.readTensor('layer.1.weight', { offset: 10 }))]).toEqual([17, 18, 19, 20, 21, 22]);
      expect([...(await checkpoint.readTensor('position_ids', { offset: 1, length: 3 }))]).toEqual([106, 107, 108]);
      expect(await checkpoint.readTensor('empty')).toHaveLength(0);
      const target = new Uint8Array(2);
      await checkpoint.readTensorInto('layer.2.weight', target, { offset: 2 });
      expect([...target]).toEqual([103, 104]);
    }));

  test('refuses ranges outside a tensor', () =>
    withTemporaryFolder(async (folder) => {
      await writeShardedCheckpoint(folder);
      await using checkpoint = await openCheckpoint(folder);
      for (const range of [{ offset: 7 }, { offset: -1 }, { offset: 4, length: 3 }, { length: -1 }, { offset: 0.5 }]) {
        await expectFailure(() => checkpoint.readTensor('layer.0.weight', range), 'INVALID_REQUEST', /"layer.0.weight", which has 6/);
      }
      await expectFailure(() => checkpoint.readTensor('nothing'), 'NOT_FOUND', /no tensor "nothing"/);
      await expectFailure(() => checkpoint.readTensor('layer.0.weight', { signal: AbortSignal.abort() }), 'CANCELLED', /./);
    }));

  const indexes: [string, unknown, RegExp][] = [
    ['a tensor that no file has', { weight_map: { other: FIRST } }, /"other" should be in model-00001.*but no file has it/],
    [
      'a tensor in the wrong file',
      { weight_map: { 'layer.0.weight': SECOND, 'layer.1.weight': FIRST } },
      /"layer.0.weight" should be in model-00002.*but it is in model-00001/,
    ],
    [
      'a tensor left out',
      { weight_map: { 'layer.0.weight': FIRST } },
      /"layer.1.weight" of model-00001-of-00002.safetensors is not in weight_map/,
    ],
    ['a file that is missing', { weight_map: { a: 'model-3.safetensors' } }, /model-3.safetensors: this file of the checkpoint is missing/],
    ['a parent folder', { weight_map: { a: '../model.safetensors' } }, /no plain name/],
    ['a folder', { weight_map: { a: 'x/model.safetensors' } }, /no plain name/],
    ['a Windows path', { weight_map: { a: '..\\\\model.safetensors' } }, /no plain name/],
    ['an absolute path', { weight_map: { a: '/etc/model.safetensors' } }, /no plain name/],
    ['a file of another kind', { weight_map: { a: 'config.json' } }, /no plain name/],
    ['a hidden file', { weight_map: { a: '.model.safetensors' } }, /no plain name/],
    ['a number for a file', { weight_map: { a: 1 } }, /expected the file of tensor "a"/],
    ['a tensor twice', `{"weight_map": {"a": "${FIRST}", "a": "${SECOND}"}}`, /names "a" twice/],
    ['no weight map', { metadata: { total_size: 1.5e3, nested: [true, null, 'x', -1] } }, /weight_map is missing/],
    ['an empty weight map', { weight_map: {} }, /weight_map is missing or empty/],
    ['no JSON', '{"weight_map"', /not valid JSON/],
    ['endless nesting', `{"metadata": ${'['.repeat(1_000_000)}`, /nested deeper than 32/],
  ];
  test.each(indexes)('an index with %s is refused', (_, index, message) =>
    withTemporaryFolder(async (folder) => {
      await writeShardedCheckpoint(folder);
      await writeFile(join(folder, INDEX), typeof index === 'string' ? index : JSON.stringify(index));
      await expectFailure(() => openCheckpoint(folder), 'INVALID_CHECKPOINT', message);
    }),
  );

  test('with a tensor in two files is refused', () =>
    withTemporaryFolder(async (folder) => {
      await writeShardedCheckpoint(folder);
      await writeFile(join(folder, SECOND), small);
      await writeFile(join(folder, FIRST), small);
      await expectFailure(() => openCheckpoint(folder), 'INVALID_CHECKPOINT', /model-00002.*tensor "a" is also in model-00001/);
    }));

  test('names the shard that is broken', () =>
    withTemporaryFolder(async (folder) => {
      await writeShardedCheckpoint(folder);
      await writeFile(join(folder, SECOND), small.subarray(0, -1));
      await expectFailure(() => openCheckpoint(folder), 'INVALID_CHECKPOINT', /model-00002-of-00002.safetensors: tensor "a" ends at byte/);
    }));
});

describe('a checkpoint folder', () => {
  test.each(['books-llama', 'books-opt', 'books-qwen2'] as const)('%s is opened, tied or not', async (model) => {
    await using checkpoint = await openCheckpoint(modelPath(model));
    expect(checkpoint.files.map(({ name }) => name)).toEqual(['model.safetensors']);
    expect(checkpoint.companionFiles).toEqual(['config.json', 'tokenizer.json', 'tokenizer_config.json']);
    expect(checkpoint.tensors.has('lm_head.weight')).toBe(model === 'books-llama');
  });

  test('may consist of links to blobs, as in a download cache', () =>
    withTemporaryFolder(async (folder) => {
      const [blobs, snapshot] = [join(folder, 'blobs'), join(folder, 'snapshots/1')];
      await mkdir(blobs);
      await mkdir(snapshot, { recursive: true });
      await writeSingleCheckpoint(blobs, small);
      for (const name of ['config.json', 'model.safetensors']) await symlink(join('../../blobs', name), join(snapshot, name));
      await symlink('/nowhere', join(snapshot, 'dangling.txt'));
      await symlink(blobs, join(snapshot, 'folder'));
      await using checkpoint = await openCheckpoint(snapshot, { allowedRoots: [folder] });
      expect([...(await checkpoint.readTensor('a'))]).toEqual([7, 8]);
      expect(checkpoint.companionFiles).toEqual(['config.json']);
      await expectFailure(() => openCheckpoint(snapshot, { allowedRoots: [snapshot] }), 'PATH_NOT_ALLOWED', /blobs/);
    }));

  test.each(['config.json', 'model.safetensors', 'README.md'])('with %s leading out of the allowed roots is refused', (name) =>
    withTemporaryFolder(async (folder) => {
      const model = join(folder, 'model');
      await mkdir(model);
      await writeSingleCheckpoint(model, small);
      await writeFile(join(model, 'README.md'), 'secret');
      await rename(join(model, name), join(folder, name));
      await symlink(join(folder, name), join(model, name));
      await (await openCheckpoint(model)).close();
      await expectFailure(() => openCheckpoint(model, { allowedRoots: [model] }), 'PATH_NOT_ALLOWED', new RegExp(name));
    }),
  );

  test('that is no safetensors checkpoint is refused', () =>
    withTemporaryFolder(async (folder) => {
      await expectFailure(() => openCheckpoint(join(folder, 'missing')), 'NOT_FOUND', /missing/);
      await expectFailure(() => openCheckpoint(folder), 'NOT_FOUND', /config.json/);
      await writeFile(join(folder, 'config.json'), '{');
      await expectFailure(() => openCheckpoint(folder), 'INVALID_CHECKPOINT', /config.json: it is not valid JSON/);
      await writeFile(join(folder, 'config.json'), '{}');
      await writeFile(join(folder, 'pytorch_model.bin'), '');
      await expectFailure(() => openCheckpoint(folder), 'INVALID_CHECKPOINT', /neither model.safetensors nor model.safetensors.index.json/);
      await mkdir(join(folder, 'model.safetensors'));
      await expectFailure(() => openCheckpoint(folder), 'FAILED_PRECONDITION', /not a regular file/);
      await rm(join(folder, 'model.safetensors'), { recursive: true });
      await writeFile(join(folder, 'model.safetensors'), small.subarray(0, 20));
      await expectFailure(() => openCheckpoint(folder), 'INVALID_CHECKPOINT', /model.safetensors: its header of \d+ bytes does not fit/);
    }));
});

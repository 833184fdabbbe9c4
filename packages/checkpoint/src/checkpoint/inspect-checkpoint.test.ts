import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { modelPath, withTemporaryFolder } from '../../test/support.js';
import { CheckpointWriter } from './checkpoint-writer.js';
import { openCheckpoint } from './checkpoint.js';
import { inspectCheckpoint } from './inspect-checkpoint.js';
import { applyMasks } from '../masks/apply-masks.js';
import { exportMasks } from '../masks/export-masks.js';

describe('inspectCheckpoint', () => {
  test('counts every projection of a dense model', async () => {
    const summary = await inspectCheckpoint(modelPath('books-qwen2'));
    expect(summary.projections.map(({ name }) => name).slice(0, 7)).toEqual(
      ['self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj', 'self_attn.o_proj', 'mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj'].map(
        (name) => `model.layers.0.${name}.weight`,
      ),
    );
    expect(summary.projections).toHaveLength(28);
    expect(summary.weights).toBe(4 * (2 * 256 * 256 + 2 * 64 * 256 + 3 * 704 * 256));
    expect(summary.sparsity).toBe(summary.zeros / summary.weights);
    expect(summary.sparsity).toBeLessThan(1e-3);
    for (const { nans, infinities, deadRows, deadColumns, patterns, minimum, maximum } of summary.projections) {
      expect([nans, infinities, deadRows, deadColumns, patterns]).toEqual([0, 0, 0, 0, []]);
      expect(minimum).toBeLessThan(0);
      expect(maximum).toBeGreaterThan(0);
    }
  });

  test('finds zeros, dead rows and columns, NaN and infinities', () =>
    withTemporaryFolder(async (folder) => {
      const output = join(folder, 'out');
      await mkdir(output);
      const name = 'model.decoder.layers.1.fc1.weight';
      await using source = await openCheckpoint(modelPath('books-opt'));
      const weights = new Uint16Array(768 * 192).fill(0x3c00);
      weights.fill(0, 0, 192);
      for (let row = 0; row < 768; row++) weights[row * 192 + 5] = 0x8000;
      weights[192] = 0x7e00;
      weights[193] = 0xfc00;
      weights[194] = 0xc000;
      const writer = await CheckpointWriter.create(source, output);
      await writer.writeTensor(name, new Uint8Array(weights.buffer));
      await writer.copyRemaining();
      await writer.finish();
      await writer.close();
      const summary = await inspectCheckpoint(output);
      const found = summary.projections.find((projection) => projection.name === name);
      expect(found).toEqual({
        name,
        block: 1,
        rows: 768,
        columns: 192,
        dataType: 2,
        zeros: 192 + 767,
        deadRows: 1,
        deadColumns: 1,
        nans: 1,
        infinities: 1,
        patterns: [],
        minimum: -2,
        maximum: 1,
      });
      expect(summary.zeros).toBe(summary.projections.reduce((sum, { zeros }) => sum + zeros, 0));
      expect(summary.zeros).toBe(summary.blocks.reduce((sum, { zeros }) => sum + zeros, 0));
      expect(summary.weights).toBe(summary.blocks.reduce((sum, { weights }) => sum + weights, 0));
      expect(summary.blocks[1]).toMatchObject({ block: 1, deadRows: 1, deadColumns: 1, nans: 1, infinities: 1, patterns: [] });
      expect(summary.blocks[0]).toMatchObject({ block: 0, deadRows: 0, deadColumns: 0, nans: 0, infinities: 0 });
    }));

  test('tells which N:M patterns hold, of projections and of blocks', () =>
    withTemporaryFolder(async (folder) => {
      const masks = join(folder, 'masks.safetensors');
      await exportMasks(modelPath('books-llama'), masks);
      // Every byte is eight weights of a row: 0101 0101 is 2:4, 0000 1111 only 4:8.
      const bytes = await readFile(masks);
      const { byteLength } = bytes;
      const dataStart = 8 + Number(bytes.readBigUInt64LE());
      await writeFile(masks, bytes.fill(0b01010101, dataStart));
      await applyMasks(modelPath('books-llama'), masks, join(folder, 'two'));
      await writeFile(masks, bytes.fill(0b00001111, byteLength - 1));
      await applyMasks(modelPath('books-llama'), masks, join(folder, 'four'));
      const [two, four] = [await inspectCheckpoint(join(folder, 'two')), await inspectCheckpoint(join(folder, 'four'))];
      expect(new Set(two.projections.map(({ patterns }) => patterns.join()))).toEqual(new Set(['2:4,4:8']));
      const last = four.projections.filter(({ patterns }) => !patterns.includes('2:4'));
      expect(last.map(({ patterns }) => patterns)).toEqual([['4:8']]);
      for (const { block, patterns } of four.blocks) expect(patterns).toEqual(block === last[0]?.block ? ['4:8'] : ['2:4', '4:8']);
    }));

  test('tells its progress and stops when cancelled', async () => {
    const cancellation = new AbortController();
    const inspection = inspectCheckpoint(modelPath('books-llama'), { signal: cancellation.signal, onProgress: () => cancellation.abort() });
    await expect(inspection).rejects.toThrow(/cancelled/);
  });

  test('refuses a model that cannot be computed', () =>
    withTemporaryFolder(async (folder) => {
      const config = JSON.parse(await readFile(join(modelPath('books-llama'), 'config.json'), 'utf8')) as object;
      await writeFile(join(folder, 'config.json'), JSON.stringify({ ...config, model_type: 'mamba' }));
      await writeFile(join(folder, 'model.safetensors'), await readFile(join(modelPath('books-llama'), 'model.safetensors')));
      await expect(inspectCheckpoint(folder)).rejects.toThrow(/mamba/);
    }));
});

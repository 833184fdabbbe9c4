import { mkdtemp, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from '@jest/globals';
import { SecateurError, type ErrorReason } from '@secateur/core';

export const repository = resolve(dirname(fileURLToPath(import.meta.url)), '../../..');

export function modelPath(name: 'books-llama' | 'books-opt' | 'books-qwen2'): string {
  return join(repository, 'examples/models', name);
}

export async function withTemporaryFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'secateur-checkpoint-')));
  try {
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Expects a SecateurError of that reason whose message matches. */
export async function expectFailure(action: () => Promise<unknown>, reason: ErrorReason, message: RegExp): Promise<void> {
  const error = await action().then(
    () => undefined,
    (caught: unknown) => caught,
  );
  expect(error).toBeInstanceOf(SecateurError);
  expect([(error as SecateurError).reason, (error as SecateurError).message]).toEqual([reason, expect.stringMatching(message)]);
}

/** The bytes of a safetensors file with the given header, an object or raw text. */
export function safetensorsBytes(header: unknown, data: Uint8Array = new Uint8Array()): Buffer {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.byteLength));
  return Buffer.concat([length, json, data]);
}

/** Writes a checkpoint of two files and an index; returns the content by file name. */
export async function writeShardedCheckpoint(folder: string): Promise<Map<string, Buffer>> {
  const first = safetensorsBytes(
    {
      __metadata__: { format: 'pt', note: 'zwei Dateien äöü' },
      'layer.1.weight': { dtype: 'F32', shape: [2, 2], data_offsets: [6, 22] },
      'layer.0.weight': { dtype: 'BF16', shape: [3], data_offsets: [0, 6] },
    },
    Buffer.from(Array.from({ length: 22 }, (_, index) => index + 1)),
  );
  const second = safetensorsBytes(
    {
      'layer.2.weight': { dtype: 'F16', shape: [2, 1], data_offsets: [0, 4] },
      position_ids: { dtype: 'I64', shape: [1, 1], data_offsets: [4, 12] },
      empty: { dtype: 'F32', shape: [0, 4], data_offsets: [12, 12] },
    },
    Buffer.from(Array.from({ length: 12 }, (_, index) => index + 101)),
  );
  const weightMap = {
    'layer.0.weight': 'model-00001-of-00002.safetensors',
    'layer.1.weight': 'model-00001-of-00002.safetensors',
    'layer.2.weight': 'model-00002-of-00002.safetensors',
    position_ids: 'model-00002-of-00002.safetensors',
    empty: 'model-00002-of-00002.safetensors',
  };
  const files = new Map<string, Buffer>([
    ['model-00001-of-00002.safetensors', first],
    ['model-00002-of-00002.safetensors', second],
    ['model.safetensors.index.json', Buffer.from(JSON.stringify({ metadata: { total_size: 34 }, weight_map: weightMap }, undefined, 2))],
    ['config.json', Buffer.from('{"model_type": "test"}\n')],
    ['generation_config.json', Buffer.from('{}')],
    ['README.md', Buffer.from('# A model\n')],
    ['LICENSE', Buffer.from('Apache-2.0')],
  ]);
  for (const [name, content] of files) await writeFile(join(folder, name), content);
  return files;
}

/** Writes a checkpoint of one file with an empty config. */
export async function writeSingleCheckpoint(folder: string, content: Uint8Array): Promise<void> {
  await writeFile(join(folder, 'config.json'), '{}');
  await writeFile(join(folder, 'model.safetensors'), content);
}

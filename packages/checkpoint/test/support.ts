import { mkdir, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises';
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

/** Shapes of a model of one layer whose rows fill no whole bytes of a mask; the projections come first. */
export const TINY_MODEL: Readonly<Record<string, readonly number[]>> = {
  'model.layers.0.self_attn.q_proj.weight': [12, 12],
  'model.layers.0.self_attn.k_proj.weight': [6, 12],
  'model.layers.0.self_attn.v_proj.weight': [6, 12],
  'model.layers.0.self_attn.o_proj.weight': [12, 12],
  'model.layers.0.mlp.gate_proj.weight': [10, 12],
  'model.layers.0.mlp.up_proj.weight': [10, 12],
  'model.layers.0.mlp.down_proj.weight': [12, 10],
  'model.layers.0.input_layernorm.weight': [12],
  'model.layers.0.post_attention_layernorm.weight': [12],
  'model.embed_tokens.weight': [5, 12],
  'model.norm.weight': [12],
};

export const TINY_PROJECTIONS = Object.keys(TINY_MODEL).slice(0, 7);

/** Writes TINY_MODEL with elements of two or four bytes, given in its order. */
export async function writeTinyModel(folder: string, dtype: 'BF16' | 'F32', elements: Uint8Array): Promise<void> {
  const config = {
    model_type: 'llama',
    hidden_size: 12,
    intermediate_size: 10,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    vocab_size: 5,
    max_position_embeddings: 8,
    hidden_act: 'silu',
    tie_word_embeddings: true,
  };
  let end = 0;
  const header = Object.fromEntries(
    Object.entries(TINY_MODEL).map(([name, shape]) => {
      const start = end;
      end += shape.reduce((product, size) => product * size, dtype === 'F32' ? 4 : 2);
      return [name, { dtype, shape, data_offsets: [start, end] }];
    }),
  );
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'config.json'), JSON.stringify(config));
  await writeFile(join(folder, 'tokenizer_config.json'), '{"tiny": true}');
  await writeFile(join(folder, 'model.safetensors'), safetensorsBytes({ __metadata__: { format: 'pt' }, ...header }, elements));
}

/** Writes a checkpoint of one file with an empty config. */
export async function writeSingleCheckpoint(folder: string, content: Uint8Array): Promise<void> {
  await writeFile(join(folder, 'config.json'), '{}');
  await writeFile(join(folder, 'model.safetensors'), content);
}

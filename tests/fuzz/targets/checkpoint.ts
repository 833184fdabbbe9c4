import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArchitecture, parseStoredType, planModel, planShapes } from '@secateur/core';
import { openCheckpoint, readModelConfig } from '@secateur/checkpoint';
import type { Random } from '../engine/random.js';
import type { FuzzTarget } from '../engine/target.js';

const LENGTH_BYTES = 8;
/** Of the model that inputs are files of. */
const CONFIG = {
  model_type: 'opt',
  hidden_size: 4,
  ffn_dim: 8,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  vocab_size: 16,
  max_position_embeddings: 8,
};
const WATCHED = ['packages/checkpoint/', 'packages/core/'];

/** Opens a checkpoint, plans it and reads what it holds. */
async function readCheckpoint(folder: string): Promise<void> {
  await using checkpoint = await openCheckpoint(folder);
  for (const { name, bytes } of checkpoint.tensors.values()) await checkpoint.readTensor(name, { length: Math.min(bytes, 1 << 16) });
  planModel(parseArchitecture(checkpoint.config), checkpoint.tensors);
}

/** A whole model.safetensors. */
export const safetensors: FuzzTarget = {
  words: [
    '"dtype":',
    '"shape":',
    '"data_offsets":',
    '__metadata__',
    'F32',
    'BF16',
    'I64',
    'F4',
    '[0,0]',
    '[9007199254740991]',
    '1125899906842624',
  ],
  watched: WATCHED,
  limitMs: 5_000,
  open: async (folder) => {
    await writeFile(join(folder, 'config.json'), JSON.stringify(CONFIG));
    return {
      read: async (input) => {
        await writeFile(join(folder, 'model.safetensors'), input);
        await readCheckpoint(folder);
      },
    };
  },
  repair: withHeaderLength,
};

/** Mostly, the length before the header is that of the text that looks like one. */
export function withHeaderLength(input: Buffer, random: Random): Buffer {
  const end = input.lastIndexOf('}') + 1;
  if (end <= LENGTH_BYTES || random.below(4) === 0) return input;
  const repaired = Buffer.from(input);
  repaired.writeBigUInt64LE(BigInt(end - LENGTH_BYTES));
  return repaired;
}

/** model.safetensors.index.json beside one shard. */
export const shardIndex: FuzzTarget = {
  words: ['"weight_map":', '"metadata":', 'model-00001-of-00001.safetensors', '/etc/passwd', '.safetensors', 'a'],
  watched: WATCHED,
  limitMs: 5_000,
  open: async (folder) => {
    const header = Buffer.from('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}');
    const length = Buffer.alloc(LENGTH_BYTES);
    length.writeBigUInt64LE(BigInt(header.byteLength));
    await writeFile(join(folder, 'model-00001-of-00001.safetensors'), Buffer.concat([length, header, Buffer.alloc(2)]));
    await writeFile(join(folder, 'config.json'), JSON.stringify(CONFIG));
    return {
      read: async (input) => {
        await writeFile(join(folder, 'model.safetensors.index.json'), input);
        await readCheckpoint(folder);
      },
    };
  },
};

/** config.json. */
export const config: FuzzTarget = {
  words: [
    ...[
      '"model_type":',
      'qwen2',
      'qwen3',
      'llama',
      'mistral',
      'opt',
      '"rope_scaling":{"rope_type":"llama3","factor":8}',
      '"linear"',
      '"yarn"',
    ],
    ...['"sliding_window":', '"layer_types":["full_attention"]', '"use_sliding_window":true', '"max_window_layers":', '"head_dim":'],
    ...['"tie_word_embeddings":', '"quantization_config":', '"word_embed_proj_dim":', '"torch_dtype":', '"dtype":', '16777216', '10000'],
  ],
  watched: ['packages/core/'],
  limitMs: 5_000,
  open: async (folder) => ({
    read: async (input) => {
      await writeFile(join(folder, 'config.json'), input);
      const { config: parsed } = await readModelConfig(folder, {});
      planShapes(parseArchitecture(parsed), parseStoredType(parsed));
    },
  }),
};

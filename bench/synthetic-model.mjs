import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * @typedef {object} ModelShape
 * @property {number} hidden
 * @property {number} intermediate
 * @property {number} layers
 * @property {number} heads
 * @property {number} keyHeads
 * @property {number} vocabulary
 * @property {boolean} tied the head is the token table
 * @property {number} samples of the ids that are written beside it
 * @property {number} sequenceLength
 */

/** @type {ModelShape} */
export const HIDDEN_1024 = {
  hidden: 1024,
  intermediate: 2816,
  layers: 4,
  heads: 16,
  keyHeads: 4,
  vocabulary: 4096,
  tied: true,
  samples: 16,
  sequenceLength: 512,
};

/** @type {ModelShape} */
export const QWEN_7B = {
  hidden: 3584,
  intermediate: 18944,
  layers: 28,
  heads: 28,
  keyHeads: 4,
  vocabulary: 152064,
  tied: false,
  samples: 128,
  sequenceLength: 2048,
};

/** Random values that tensors are cut from, each from where the one before ended: more than any row, so that rows differ. */
const POOL_VALUES = 1 << 24;

/** A Qwen2 checkpoint with random bfloat16 weights, a file for each block, and ids.safetensors. @param {string} folder @param {ModelShape} shape */
export async function writeSyntheticModel(folder, shape) {
  const pool = randomPool();
  let place = 0;
  /** @type {Record<string, string>} */
  const weightMap = {};
  for (const [file, tensors] of filesOf(shape)) {
    const handle = await open(join(folder, file), 'w');
    try {
      await handle.appendFile(headerOf(tensors.map(([name, extents]) => ({ name, dtype: 'BF16', extents, elementBytes: 2 }))));
      for (const [name, extents] of tensors) {
        weightMap[name] = file;
        for (let left = elementsOf(extents); left > 0;) {
          const count = Math.min(left, POOL_VALUES - place);
          await handle.appendFile(pool.subarray(2 * place, 2 * (place + count)));
          place = (place + count) % POOL_VALUES;
          left -= count;
        }
      }
    } finally {
      await handle.close();
    }
  }
  await writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: weightMap }));
  const { samples, sequenceLength } = shape;
  const ids = Int32Array.from({ length: samples * sequenceLength }, (_, index) => (index * 97) % shape.vocabulary);
  const header = headerOf([{ name: 'input_ids', dtype: 'I32', extents: [samples, sequenceLength], elementBytes: 4 }]);
  await writeFile(join(folder, 'ids.safetensors'), Buffer.concat([header, Buffer.from(ids.buffer)]));
  await writeFile(join(folder, 'config.json'), JSON.stringify(configOf(shape)));
}

/** Tensors of each file. @param {ModelShape} shape @returns {[string, [string, number[]][]][]} */
function filesOf({ hidden, intermediate, layers, heads, keyHeads, vocabulary, tied }) {
  const key = (hidden / heads) * keyHeads;
  /** @type {[string, number[]][]} */
  const outside = [
    ['model.embed_tokens.weight', [vocabulary, hidden]],
    ['model.norm.weight', [hidden]],
  ];
  if (!tied) outside.push(['lm_head.weight', [vocabulary, hidden]]);
  const blocks = Array.from({ length: layers }, (_, layer) => {
    const prefix = `model.layers.${layer}`;
    const projections = /** @type {[string, number, number, boolean][]} */ ([
      ['self_attn.q_proj', hidden, hidden, true],
      ['self_attn.k_proj', key, hidden, true],
      ['self_attn.v_proj', key, hidden, true],
      ['self_attn.o_proj', hidden, hidden, false],
      ['mlp.gate_proj', intermediate, hidden, false],
      ['mlp.up_proj', intermediate, hidden, false],
      ['mlp.down_proj', hidden, intermediate, false],
    ]);
    /** @type {[string, number[]][]} */
    const tensors = [
      [`${prefix}.input_layernorm.weight`, [hidden]],
      [`${prefix}.post_attention_layernorm.weight`, [hidden]],
    ];
    for (const [name, rows, columns, biased] of projections) {
      tensors.push([`${prefix}.${name}.weight`, [rows, columns]]);
      if (biased) tensors.push([`${prefix}.${name}.bias`, [rows]]);
    }
    return /** @type {[string, [string, number[]][]]} */ ([`model-layer-${layer}.safetensors`, tensors]);
  });
  return [['model-outside.safetensors', outside], ...blocks];
}

/** @param {ModelShape} shape */
function configOf(shape) {
  return {
    model_type: 'qwen2',
    hidden_size: shape.hidden,
    intermediate_size: shape.intermediate,
    num_hidden_layers: shape.layers,
    num_attention_heads: shape.heads,
    num_key_value_heads: shape.keyHeads,
    vocab_size: shape.vocabulary,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-6,
    tie_word_embeddings: shape.tied,
  };
}

/** Bytes of bfloat16, evenly spread from -0.05 to 0.05. */
function randomPool() {
  const values = new Uint16Array(POOL_VALUES);
  const float = new Float32Array(1);
  const bits = new Uint32Array(float.buffer);
  let state = 1;
  for (let index = 0; index < POOL_VALUES; index++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    float[0] = (state / 2 ** 32 - 0.5) * 0.1;
    values[index] = /** @type {number} */ (bits[0]) >>> 16;
  }
  return Buffer.from(values.buffer);
}

/** @param {readonly { name: string, dtype: string, extents: number[], elementBytes: number }[]} tensors */
function headerOf(tensors) {
  let offset = 0;
  const entries = tensors.map(({ name, dtype, extents, elementBytes }) => {
    const begin = offset;
    offset += elementBytes * elementsOf(extents);
    return [name, { dtype, shape: extents, data_offsets: [begin, offset] }];
  });
  const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.byteLength));
  return Buffer.concat([length, json]);
}

/** @param {readonly number[]} extents */
function elementsOf(extents) {
  return extents.reduce((product, extent) => product * extent, 1);
}

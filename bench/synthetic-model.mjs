import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** A Qwen2 checkpoint with random weights and matching ids. @param {string} folder */
export async function writeSyntheticModel(folder) {
  const [hidden, intermediate, layers, heads, keyHeads, vocabulary] = [1024, 2816, 4, 16, 4, 4096];
  /** @type {[string, number[]][]} */
  const tensors = [['model.embed_tokens.weight', [vocabulary, hidden]]];
  for (let layer = 0; layer < layers; layer++) {
    const key = (hidden / heads) * keyHeads;
    const prefix = `model.layers.${layer}`;
    tensors.push([`${prefix}.input_layernorm.weight`, [hidden]], [`${prefix}.post_attention_layernorm.weight`, [hidden]]);
    for (const [name, rows] of /** @type {[string, number][]} */ ([
      ['q_proj', hidden],
      ['k_proj', key],
      ['v_proj', key],
    ])) {
      tensors.push([`${prefix}.self_attn.${name}.weight`, [rows, hidden]], [`${prefix}.self_attn.${name}.bias`, [rows]]);
    }
    tensors.push([`${prefix}.self_attn.o_proj.weight`, [hidden, hidden]], [`${prefix}.mlp.gate_proj.weight`, [intermediate, hidden]]);
    tensors.push([`${prefix}.mlp.up_proj.weight`, [intermediate, hidden]], [`${prefix}.mlp.down_proj.weight`, [hidden, intermediate]]);
  }
  tensors.push(['model.norm.weight', [hidden]]);
  /** @type {Record<string, object>} */
  const header = {};
  let offset = 0;
  for (const [name, shape] of tensors) {
    const end = offset + 2 * shape.reduce((product, size) => product * size, 1);
    header[name] = { dtype: 'BF16', shape, data_offsets: [offset, end] };
    offset = end;
  }
  let state = 1;
  const random = () => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32 - 0.5) * 0.1;
  const data = new Uint16Array(offset / 2);
  const bits = new DataView(new ArrayBuffer(4));
  for (let index = 0; index < data.length; index++) {
    bits.setFloat32(0, random());
    data[index] = bits.getUint16(0);
  }
  const writeTensors = (/** @type {object} */ content, /** @type {Buffer} */ bytes) => {
    const json = Buffer.from(JSON.stringify(content));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(json.byteLength));
    return Buffer.concat([length, json, bytes]);
  };
  await writeFile(join(folder, 'model.safetensors'), writeTensors(header, Buffer.from(data.buffer)));
  const ids = Int32Array.from({ length: 16 * 512 }, (_, index) => (index * 97) % vocabulary);
  const idHeader = { input_ids: { dtype: 'I32', shape: [16, 512], data_offsets: [0, ids.byteLength] } };
  await writeFile(join(folder, 'ids.safetensors'), writeTensors(idHeader, Buffer.from(ids.buffer)));
  await writeFile(
    join(folder, 'config.json'),
    JSON.stringify({
      model_type: 'qwen2',
      hidden_size: hidden,
      intermediate_size: intermediate,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      num_key_value_heads: keyHeads,
      vocab_size: vocabulary,
      max_position_embeddings: 2048,
      rms_norm_eps: 1e-6,
      tie_word_embeddings: true,
    }),
  );
}

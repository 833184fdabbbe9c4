import { describe, expect, test } from '@jest/globals';
import { DataType, TensorRole, type Architecture } from '@secateur/proto/model';
import { InputSite } from '@secateur/proto/statistics';
import { countParameters } from '../../test/count-parameters.js';
import { SecateurError } from '../errors.js';
import type { ModelPlan } from './model-plan.js';
import { parseArchitecture } from './parse-architecture.js';
import { planModel, plannedTensors, planShapes, type StoredTensor } from './plan-model.js';

type Tensors = Map<string, StoredTensor>;

const ROTARY_SIZES = {
  hidden_size: 16,
  intermediate_size: 40,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 50,
  max_position_embeddings: 64,
};
const LLAMA = parseArchitecture({ model_type: 'llama', ...ROTARY_SIZES });
const QWEN2 = parseArchitecture({ model_type: 'qwen2', tie_word_embeddings: true, ...ROTARY_SIZES });
const OPT = parseArchitecture({
  model_type: 'opt',
  hidden_size: 16,
  ffn_dim: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  vocab_size: 50,
  max_position_embeddings: 64,
});

const QWEN3 = parseArchitecture({ model_type: 'qwen3', head_dim: 6, ...ROTARY_SIZES });
const BIASED_LLAMA = parseArchitecture({ model_type: 'llama', attention_bias: true, mlp_bias: true, ...ROTARY_SIZES });
const OPT_350M = parseArchitecture({
  model_type: 'opt',
  do_layer_norm_before: false,
  hidden_size: 16,
  word_embed_proj_dim: 12,
  ffn_dim: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  vocab_size: 50,
  max_position_embeddings: 64,
});

function store(shapes: Readonly<Record<string, readonly number[]>>): Tensors {
  return new Map(Object.entries(shapes).map(([name, shape]) => [name, { dtype: 'BF16', dataType: DataType.BF16, shape }]));
}

function rotaryTensors({ biases }: { readonly biases: boolean }): Tensors {
  const shapes: Record<string, readonly number[]> = { 'model.embed_tokens.weight': [50, 16], 'model.norm.weight': [16] };
  for (const layer of [0, 1]) {
    const block: Record<string, readonly number[]> = {
      'input_layernorm.weight': [16],
      'self_attn.q_proj.weight': [16, 16],
      'self_attn.k_proj.weight': [8, 16],
      'self_attn.v_proj.weight': [8, 16],
      'self_attn.o_proj.weight': [16, 16],
      'post_attention_layernorm.weight': [16],
      'mlp.gate_proj.weight': [40, 16],
      'mlp.up_proj.weight': [40, 16],
      'mlp.down_proj.weight': [16, 40],
      ...(biases ? { 'self_attn.q_proj.bias': [16], 'self_attn.k_proj.bias': [8], 'self_attn.v_proj.bias': [8] } : {}),
    };
    for (const [name, shape] of Object.entries(block)) shapes[`model.layers.${layer}.${name}`] = shape;
  }
  return store(shapes);
}

function llamaTensors(): Tensors {
  return rotaryTensors({ biases: false }).set('lm_head.weight', { dtype: 'BF16', dataType: DataType.BF16, shape: [50, 16] });
}

function qwen2Tensors(): Tensors {
  return rotaryTensors({ biases: true });
}

function optTensors(prefix = 'model.decoder'): Tensors {
  const shapes: Record<string, readonly number[]> = {
    [`${prefix}.embed_tokens.weight`]: [50, 16],
    [`${prefix}.embed_positions.weight`]: [66, 16],
    [`${prefix}.final_layer_norm.weight`]: [16],
    [`${prefix}.final_layer_norm.bias`]: [16],
  };
  for (const layer of [0, 1]) {
    for (const [name, rows, columns] of [
      ['self_attn.q_proj', 16, 16],
      ['self_attn.k_proj', 16, 16],
      ['self_attn.v_proj', 16, 16],
      ['self_attn.out_proj', 16, 16],
      ['fc1', 64, 16],
      ['fc2', 16, 64],
    ] as const) {
      shapes[`${prefix}.layers.${layer}.${name}.weight`] = [rows, columns];
      shapes[`${prefix}.layers.${layer}.${name}.bias`] = [rows];
    }
    for (const name of ['self_attn_layer_norm', 'final_layer_norm']) {
      shapes[`${prefix}.layers.${layer}.${name}.weight`] = [16];
      shapes[`${prefix}.layers.${layer}.${name}.bias`] = [16];
    }
  }
  return store(shapes);
}

function qwen3Tensors(): Tensors {
  const tensors = llamaTensors();
  for (const layer of [0, 1]) {
    const shapes = { q_proj: [24, 16], k_proj: [12, 16], v_proj: [12, 16], o_proj: [16, 24], q_norm: [6], k_norm: [6] };
    for (const [name, shape] of Object.entries(shapes)) {
      tensors.set(`model.layers.${layer}.self_attn.${name}.weight`, { dtype: 'BF16', dataType: DataType.BF16, shape });
    }
  }
  return tensors;
}

function biasedLlamaTensors(): Tensors {
  const tensors = rotaryTensors({ biases: true }).set('lm_head.weight', { dtype: 'BF16', dataType: DataType.BF16, shape: [50, 16] });
  for (const layer of [0, 1]) {
    for (const [name, rows] of Object.entries({ 'self_attn.o_proj': 16, 'mlp.gate_proj': 40, 'mlp.up_proj': 40, 'mlp.down_proj': 16 })) {
      tensors.set(`model.layers.${layer}.${name}.bias`, { dtype: 'BF16', dataType: DataType.BF16, shape: [rows] });
    }
  }
  return tensors;
}

function opt350mTensors(): Tensors {
  const tensors = optTensors();
  for (const name of ['weight', 'bias']) without(tensors, `model.decoder.final_layer_norm.${name}`);
  const shapes = { embed_tokens: [50, 12], project_in: [16, 12], project_out: [12, 16] };
  for (const [name, shape] of Object.entries(shapes)) {
    tensors.set(`model.decoder.${name}.weight`, { dtype: 'BF16', dataType: DataType.BF16, shape });
  }
  return tensors;
}

const FAMILIES: [string, Architecture, () => Tensors][] = [
  ['llama', LLAMA, llamaTensors],
  ['qwen2', QWEN2, qwen2Tensors],
  ['opt', OPT, optTensors],
  ['qwen3', QWEN3, qwen3Tensors],
  ['llama with biases', BIASED_LLAMA, biasedLlamaTensors],
  ['opt-350m', OPT_350M, opt350mTensors],
];

function errorOf(architecture: Architecture, tensors: Tensors): SecateurError {
  try {
    planModel(architecture, tensors);
  } catch (error) {
    if (error instanceof SecateurError) return error;
    throw error;
  }
  throw new Error('The tensors were accepted.');
}

function without(tensors: Tensors, name: string): Tensors {
  expect(tensors.delete(name)).toBe(true);
  return tensors;
}

function plannedNames({ embedding, blocks, head }: ModelPlan): Set<string> {
  return new Set([embedding, ...blocks.map(({ shard }) => shard), head].flatMap(({ tensors }) => tensors.map(({ name }) => name)));
}

describe('a whole checkpoint', () => {
  test.each(FAMILIES)('%s: every tensor is planned and the parameters add up', (_, architecture, makeTensors) => {
    const tensors = makeTensors();
    const plan = planModel(architecture, tensors);
    expect(plannedNames(plan)).toEqual(new Set(tensors.keys()));
    const stored = [...tensors.values()].reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
    expect(countParameters(architecture)).toBe(stored);
    expect(planShapes(architecture, DataType.BF16)).toEqual(plan);
    expect(new Set(plannedTensors(plan).map(({ name }) => name))).toEqual(new Set(tensors.keys()));
    expect(plan.blocks.map(({ index, shard }) => [index, shard.id])).toEqual([
      [0, 'block/0'],
      [1, 'block/1'],
    ]);
  });

  test('qwen2: projections in network order with the input they share', () => {
    const [, block] = planModel(QWEN2, qwen2Tensors()).blocks;
    const prefix = 'model.layers.1';
    expect(block!.projections).toEqual([
      { name: `${prefix}.self_attn.q_proj.weight`, role: TensorRole.QUERY_WEIGHT, rows: 16, columns: 16, site: InputSite.ATTENTION_INPUT },
      { name: `${prefix}.self_attn.k_proj.weight`, role: TensorRole.KEY_WEIGHT, rows: 8, columns: 16, site: InputSite.ATTENTION_INPUT },
      { name: `${prefix}.self_attn.v_proj.weight`, role: TensorRole.VALUE_WEIGHT, rows: 8, columns: 16, site: InputSite.ATTENTION_INPUT },
      {
        name: `${prefix}.self_attn.o_proj.weight`,
        role: TensorRole.OUTPUT_WEIGHT,
        rows: 16,
        columns: 16,
        site: InputSite.ATTENTION_OUTPUT,
      },
      { name: `${prefix}.mlp.gate_proj.weight`, role: TensorRole.GATE_WEIGHT, rows: 40, columns: 16, site: InputSite.FEED_FORWARD_INPUT },
      { name: `${prefix}.mlp.up_proj.weight`, role: TensorRole.UP_WEIGHT, rows: 40, columns: 16, site: InputSite.FEED_FORWARD_INPUT },
      { name: `${prefix}.mlp.down_proj.weight`, role: TensorRole.DOWN_WEIGHT, rows: 16, columns: 40, site: InputSite.FEED_FORWARD_HIDDEN },
    ]);
  });

  test('opt: fc1 and fc2 are the up and down projections, all roles once', () => {
    const [block] = planModel(OPT, optTensors()).blocks;
    expect(block!.projections.map(({ role }) => role)).toEqual([
      TensorRole.QUERY_WEIGHT,
      TensorRole.KEY_WEIGHT,
      TensorRole.VALUE_WEIGHT,
      TensorRole.OUTPUT_WEIGHT,
      TensorRole.UP_WEIGHT,
      TensorRole.DOWN_WEIGHT,
    ]);
    const roles = new Map(block!.shard.tensors.map(({ role, name }) => [role, name]));
    expect(roles.size).toBe(16);
    expect(roles.get(TensorRole.UP_BIAS)).toBe('model.decoder.layers.0.fc1.bias');
    expect(roles.get(TensorRole.FEED_FORWARD_NORM_BIAS)).toBe('model.decoder.layers.0.final_layer_norm.bias');
    expect(roles.get(TensorRole.ATTENTION_NORM_WEIGHT)).toBe('model.decoder.layers.0.self_attn_layer_norm.weight');
  });

  test('opt: names without the leading part', () => {
    const plan = planModel(OPT, optTensors('decoder'));
    expect(plan.embedding.tensors.map(({ name }) => name)).toEqual(['decoder.embed_tokens.weight', 'decoder.embed_positions.weight']);
  });

  test('an explicit width of heads shapes the attention projections', () => {
    const wide = parseArchitecture({ model_type: 'llama', ...ROTARY_SIZES, head_dim: 6 });
    const tensors = llamaTensors();
    for (const layer of [0, 1]) {
      for (const [name, shape] of Object.entries({ q_proj: [24, 16], k_proj: [12, 16], v_proj: [12, 16], o_proj: [16, 24] })) {
        tensors.set(`model.layers.${layer}.self_attn.${name}.weight`, { dtype: 'F32', dataType: DataType.F32, shape });
      }
    }
    const output = planModel(wide, tensors).blocks[0]!.projections.find(({ role }) => role === TensorRole.OUTPUT_WEIGHT);
    expect(output).toMatchObject({ rows: 16, columns: 24 });
  });
});

describe('the head', () => {
  test('is a tensor of its own when untied', () => {
    expect(planModel(LLAMA, llamaTensors()).head.tensors).toEqual([
      { name: 'model.norm.weight', role: TensorRole.FINAL_NORM_WEIGHT, dataType: DataType.BF16, shape: [16] },
      { name: 'lm_head.weight', role: TensorRole.HEAD_WEIGHT, dataType: DataType.BF16, shape: [50, 16] },
    ]);
    expect(errorOf(LLAMA, without(llamaTensors(), 'lm_head.weight')).message).toContain('lm_head.weight');
  });

  test.each(['model.embed_tokens.weight', 'lm_head.weight'])('is the embedding when tied and stored as %s', (stored) => {
    const tensors = without(qwen2Tensors(), 'model.embed_tokens.weight').set(stored, {
      dtype: 'BF16',
      dataType: DataType.BF16,
      shape: [50, 16],
    });
    const { embedding, head } = planModel(QWEN2, tensors);
    expect(embedding.tensors[0]).toMatchObject({ name: stored, role: TensorRole.TOKEN_EMBEDDING });
    expect(head.tensors.at(-1)).toMatchObject({ name: stored, role: TensorRole.HEAD_WEIGHT });
  });

  test('is the embedding when tied though both are stored', () => {
    const tensors = qwen2Tensors().set('lm_head.weight', { dtype: 'BF16', dataType: DataType.BF16, shape: [50, 16] });
    expect(planModel(QWEN2, tensors).head.tensors.at(-1)!.name).toBe('model.embed_tokens.weight');
  });
});

describe('tensors that contradict the architecture', () => {
  test.each(FAMILIES)('%s: each tensor is missed by name and shape', (_, architecture, makeTensors) => {
    for (const [name, { shape }] of makeTensors()) {
      const error = errorOf(architecture, without(makeTensors(), name));
      expect(error.reason).toBe('INVALID_CHECKPOINT');
      // Without its embedding an OPT checkpoint is taken for one with full names, a tied one for one that stores its head.
      if (name.endsWith('embed_tokens.weight')) expect(error.message).toMatch(/\.weight/);
      else
        expect(error.message).toContain(`Tensor ${name} of shape [${shape.join(', ')}] is missing; a file of the checkpoint was left out`);
    }
  });

  test.each(FAMILIES)('%s: each wrong shape is told with the expected one', (_, architecture, makeTensors) => {
    for (const [name, stored] of makeTensors()) {
      const { shape } = stored;
      const wrong = [...shape.slice(0, -1), shape.at(-1)! + 1];
      const error = errorOf(architecture, makeTensors().set(name, { ...stored, shape: wrong }));
      expect(error.reason).toBe('INVALID_CHECKPOINT');
      expect(error.message).toBe(`Tensor ${name} has the shape [${wrong.join(', ')}]; config.json asks for [${shape.join(', ')}].`);
    }
  });

  test('a transposed projection and one of another rank', () => {
    const name = 'model.layers.0.mlp.up_proj.weight';
    expect(errorOf(LLAMA, llamaTensors().set(name, { dtype: 'F16', dataType: DataType.F16, shape: [16, 40] })).message).toContain(
      '[16, 40]',
    );
    expect(errorOf(LLAMA, llamaTensors().set(name, { dtype: 'F16', dataType: DataType.F16, shape: [40, 16, 1] })).message).toContain(
      '[40, 16, 1]',
    );
  });

  test.each(['model.layers.0.self_attn.q_proj.bias', 'model.layers.2.input_layernorm.weight', 'value_head.weight'])(
    '%s would be ignored silently',
    (name) => {
      const error = errorOf(LLAMA, llamaTensors().set(name, { dtype: 'BF16', dataType: DataType.BF16, shape: [16] }));
      expect(error.reason).toBe('INVALID_CHECKPOINT');
      expect(error.message).toContain(name);
    },
  );

  test('a tensor of a type that nothing computes with is told so, and may be there where nothing reads it', () => {
    const name = 'model.layers.1.mlp.up_proj.weight';
    const { shape } = llamaTensors().get(name)!;
    const integers = { dtype: 'I16', dataType: DataType.UNSPECIFIED, shape };
    expect(errorOf(LLAMA, llamaTensors().set(name, integers)).message).toBe(
      `Tensor ${name} is stored as I16; F32, F16 and BF16 can be computed with. Convert the checkpoint to one of them.`,
    );
    expect(planModel(LLAMA, llamaTensors().set('position_ids', integers))).toEqual(planModel(LLAMA, llamaTensors()));
  });

  test('stored rotary frequencies change nothing', () => {
    const tensors = llamaTensors().set('model.layers.0.self_attn.rotary_emb.inv_freq', {
      dtype: 'F32',
      dataType: DataType.F32,
      shape: [2],
    });
    expect(planModel(LLAMA, tensors)).toEqual(planModel(LLAMA, llamaTensors()));
  });
});

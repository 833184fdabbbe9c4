import { describe, expect, test } from '@jest/globals';
import {
  AttentionBiases,
  DataType,
  FeedForward,
  ModelFamily,
  Normalization,
  PositionEncoding,
  RotaryScalingKind,
  type Architecture,
} from '@secateur/proto/model';
import { countParameters } from '../../test/count-parameters.js';
import { SecateurError } from '../errors.js';
import { parseArchitecture } from './parse-architecture.js';
import { plannedTensors, planShapes } from './plan-model.js';

/** What the published config.json of each model says about its computation, with its published number of parameters. */
const QWEN2 = {
  model_type: 'qwen2',
  hidden_act: 'silu',
  rope_theta: 1e6,
  use_sliding_window: false,
  sliding_window: 131_072,
  max_window_layers: 28,
};
const LLAMA2 = {
  model_type: 'llama',
  hidden_act: 'silu',
  rms_norm_eps: 1e-5,
  max_position_embeddings: 2048,
  vocab_size: 32_000,
  rope_scaling: null,
};
const OPT = {
  model_type: 'opt',
  activation_function: 'relu',
  do_layer_norm_before: true,
  max_position_embeddings: 2048,
  vocab_size: 50_272,
  dropout: 0.1,
};

function sizes(
  hidden: number,
  intermediate: number,
  layers: number,
  heads: number,
  keyValueHeads: number,
  vocabulary?: number,
): Record<string, number> {
  return {
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: keyValueHeads,
    ...(vocabulary === undefined ? {} : { vocab_size: vocabulary }),
  };
}

function optSizes(hidden: number, feedForward: number, layers: number, heads: number): Record<string, number> {
  return { hidden_size: hidden, ffn_dim: feedForward, num_hidden_layers: layers, num_attention_heads: heads, word_embed_proj_dim: hidden };
}

const LLAMA3 = {
  model_type: 'llama',
  hidden_act: 'silu',
  rms_norm_eps: 1e-5,
  max_position_embeddings: 131_072,
  rope_theta: 5e5,
  attention_bias: false,
  mlp_bias: false,
  rope_scaling: { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 },
};
const MISTRAL = {
  model_type: 'mistral',
  hidden_act: 'silu',
  rms_norm_eps: 1e-5,
  max_position_embeddings: 32_768,
  rope_theta: 10_000,
  tie_word_embeddings: false,
};
const QWEN3 = {
  model_type: 'qwen3',
  hidden_act: 'silu',
  attention_bias: false,
  head_dim: 128,
  max_position_embeddings: 40_960,
  max_window_layers: 28,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 1e6,
  sliding_window: null,
  use_sliding_window: false,
  vocab_size: 151_936,
};

const QWEN2_SMALL = { ...QWEN2, max_position_embeddings: 32_768, rms_norm_eps: 1e-6, tie_word_embeddings: true };
const QWEN2_LARGE = { ...QWEN2, max_position_embeddings: 131_072, rms_norm_eps: 1e-5, tie_word_embeddings: false };

const PUBLISHED = [
  { name: 'Qwen2.5-0.5B', config: { ...QWEN2_SMALL, use_mrope: false, ...sizes(896, 4864, 24, 14, 2, 151_936) }, parameters: 494_032_768 },
  {
    name: 'Qwen2.5-3B',
    config: { ...QWEN2_SMALL, use_mrope: false, ...sizes(2048, 11_008, 36, 16, 2, 151_936) },
    parameters: 3_085_938_688,
  },
  {
    name: 'Qwen2.5-7B',
    config: { ...QWEN2_LARGE, rms_norm_eps: 1e-6, ...sizes(3584, 18_944, 28, 28, 4, 152_064) },
    parameters: 7_615_616_512,
  },
  { name: 'Qwen2.5-14B', config: { ...QWEN2_LARGE, ...sizes(5120, 13_824, 48, 40, 8, 152_064) }, parameters: 14_770_033_664 },
  { name: 'Qwen2.5-72B', config: { ...QWEN2_LARGE, ...sizes(8192, 29_568, 80, 64, 8, 152_064) }, parameters: 72_706_203_648 },
  { name: 'Llama-2-7b', config: { ...LLAMA2, pretraining_tp: 1, ...sizes(4096, 11_008, 32, 32, 32) }, parameters: 6_738_415_616 },
  { name: 'Llama-2-13b', config: { ...LLAMA2, pretraining_tp: 2, ...sizes(5120, 13_824, 40, 40, 40) }, parameters: 13_015_864_320 },
  { name: 'Llama-2-70b', config: { ...LLAMA2, ...sizes(8192, 28_672, 80, 64, 8) }, parameters: 68_976_648_192 },
  { name: 'opt-125m', config: { ...OPT, ...optSizes(768, 3072, 12, 12) }, parameters: 125_239_296 },
  { name: 'opt-6.7b', config: { ...OPT, _remove_final_layer_norm: false, ...optSizes(4096, 16_384, 32, 32) }, parameters: 6_658_473_984 },
  { name: 'opt-13b', config: { ...OPT, output_projection: true, ...optSizes(5120, 20_480, 40, 40) }, parameters: 12_853_473_280 },
  {
    name: 'Qwen2-7B-Instruct',
    config: { ...QWEN2_SMALL, tie_word_embeddings: false, ...sizes(3584, 18_944, 28, 28, 4, 152_064) },
    parameters: 7_615_616_512,
  },
  { name: 'Qwen2.5-32B', config: { ...QWEN2_LARGE, ...sizes(5120, 27_648, 64, 40, 8, 152_064) }, parameters: 32_763_876_352 },
  {
    name: 'opt-350m',
    config: { ...OPT, do_layer_norm_before: false, ...optSizes(1024, 4096, 24, 16), word_embed_proj_dim: 512 },
    parameters: 331_196_416,
  },
  { name: 'opt-1.3b', config: { ...OPT, ...optSizes(2048, 8192, 24, 32) }, parameters: 1_315_758_080 },
  { name: 'opt-2.7b', config: { ...OPT, ...optSizes(2560, 10_240, 32, 32) }, parameters: 2_651_596_800 },
  { name: 'opt-30b', config: { ...OPT, ...optSizes(7168, 28_672, 48, 56) }, parameters: 29_974_540_288 },
  { name: 'opt-66b', config: { ...OPT, ...optSizes(9216, 36_864, 64, 72) }, parameters: 65_719_701_504 },
  { name: 'Llama-3.1-8B', config: { ...LLAMA3, ...sizes(4096, 14_336, 32, 32, 8, 128_256) }, parameters: 8_030_261_248 },
  { name: 'Llama-3.1-70B', config: { ...LLAMA3, ...sizes(8192, 28_672, 80, 64, 8, 128_256) }, parameters: 70_553_706_496 },
  {
    name: 'Llama-3.2-1B',
    config: {
      ...LLAMA3,
      head_dim: 64,
      tie_word_embeddings: true,
      rope_scaling: { ...LLAMA3.rope_scaling, factor: 32 },
      ...sizes(2048, 8192, 16, 32, 8, 128_256),
    },
    parameters: 1_235_814_400,
  },
  {
    name: 'Mistral-7B-v0.1',
    config: { ...MISTRAL, sliding_window: 4096, ...sizes(4096, 14_336, 32, 32, 8, 32_000) },
    parameters: 7_241_732_096,
  },
  {
    name: 'Mistral-7B-v0.3',
    config: { ...MISTRAL, rope_theta: 1e6, sliding_window: null, ...sizes(4096, 14_336, 32, 32, 8, 32_768) },
    parameters: 7_248_023_552,
  },
  { name: 'Qwen3-0.6B', config: { ...QWEN3, tie_word_embeddings: true, ...sizes(1024, 3072, 28, 16, 8) }, parameters: 596_049_920 },
  { name: 'Qwen3-8B', config: { ...QWEN3, tie_word_embeddings: false, ...sizes(4096, 12_288, 36, 32, 8) }, parameters: 8_190_735_360 },
];

/** What most models do not have. */
const PLAIN = {
  postNormalization: false,
  finalNormalization: true,
  embeddingSize: 0,
  rotaryScaling: undefined,
  slidingWindow: 0,
  slidingLayers: [],
  queryKeyNormalization: false,
  attentionBiases: AttentionBiases.NONE,
  feedForwardBiases: false,
} satisfies Partial<Architecture>;

function config(name: string): Record<string, unknown> {
  const found = PUBLISHED.find((published) => published.name === name);
  if (found === undefined) throw new Error(`There is no ${name}.`);
  return found.config;
}

function errorOf(value: unknown): SecateurError {
  try {
    parseArchitecture(value);
  } catch (error) {
    if (error instanceof SecateurError) return error;
    throw error;
  }
  throw new Error('The config was accepted.');
}

describe('published models', () => {
  test.each(PUBLISHED)('$name has the parameters it is known for', ({ config, parameters }) => {
    const architecture = parseArchitecture(config);
    expect(countParameters(architecture)).toBe(parameters);
    const plan = planShapes(architecture, DataType.BF16);
    expect(plannedTensors(plan).reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0)).toBe(parameters);
    expect(plan.blocks).toHaveLength(architecture.layers);
  });

  test('Qwen2.5-0.5B', () => {
    expect(parseArchitecture(config('Qwen2.5-0.5B'))).toEqual({
      ...PLAIN,
      attentionBiases: AttentionBiases.INPUTS,
      family: ModelFamily.QWEN2,
      hiddenSize: 896,
      intermediateSize: 4864,
      layers: 24,
      attentionHeads: 14,
      keyValueHeads: 2,
      headDimension: 64,
      vocabularySize: 151_936,
      maximumPositions: 32_768,
      normalization: Normalization.RMS,
      normalizationEpsilon: 1e-6,
      positionEncoding: PositionEncoding.ROTARY,
      rotaryBase: 1e6,
      learnedPositionOffset: 0,
      feedForward: FeedForward.GATED_SILU,
      tiedEmbeddings: true,
    });
  });

  test('Llama-2-70b takes the base of rotary embeddings and the untied head from the defaults', () => {
    expect(parseArchitecture(config('Llama-2-70b'))).toEqual({
      ...PLAIN,
      family: ModelFamily.LLAMA,
      hiddenSize: 8192,
      intermediateSize: 28_672,
      layers: 80,
      attentionHeads: 64,
      keyValueHeads: 8,
      headDimension: 128,
      vocabularySize: 32_000,
      maximumPositions: 2048,
      normalization: Normalization.RMS,
      normalizationEpsilon: 1e-5,
      positionEncoding: PositionEncoding.ROTARY,
      rotaryBase: 10_000,
      learnedPositionOffset: 0,
      feedForward: FeedForward.GATED_SILU,
      tiedEmbeddings: false,
    });
  });

  test('opt-125m is tied by default', () => {
    expect(parseArchitecture(config('opt-125m'))).toEqual({
      ...PLAIN,
      attentionBiases: AttentionBiases.ALL,
      feedForwardBiases: true,
      family: ModelFamily.OPT,
      hiddenSize: 768,
      intermediateSize: 3072,
      layers: 12,
      attentionHeads: 12,
      keyValueHeads: 12,
      headDimension: 64,
      vocabularySize: 50_272,
      maximumPositions: 2048,
      normalization: Normalization.LAYER,
      normalizationEpsilon: 1e-5,
      positionEncoding: PositionEncoding.LEARNED,
      rotaryBase: 0,
      learnedPositionOffset: 2,
      feedForward: FeedForward.RELU,
      tiedEmbeddings: true,
    });
  });
});

describe('what only some models have', () => {
  test('opt-350m normalises afterwards and projects its tokens', () => {
    expect(parseArchitecture(config('opt-350m'))).toMatchObject({ postNormalization: true, finalNormalization: false, embeddingSize: 512 });
    expect(parseArchitecture({ ...config('opt-125m'), _remove_final_layer_norm: true })).toMatchObject({
      postNormalization: false,
      finalNormalization: false,
    });
  });

  test('Qwen3 normalises the heads of queries and keys', () => {
    expect(parseArchitecture(config('Qwen3-0.6B'))).toMatchObject({ queryKeyNormalization: true, headDimension: 128, hiddenSize: 1024 });
    const { head_dim: _removed, ...rest } = config('Qwen3-0.6B');
    expect(parseArchitecture(rest).headDimension).toBe(128);
    expect(parseArchitecture({ ...rest, attention_bias: true }).attentionBiases).toBe(AttentionBiases.ALL);
  });

  test('LLaMA with biases', () => {
    expect(parseArchitecture({ ...config('Llama-2-7b'), attention_bias: true, mlp_bias: true })).toMatchObject({
      attentionBiases: AttentionBiases.ALL,
      feedForwardBiases: true,
    });
  });

  test.each([
    ['older files', { rope_scaling: { type: 'linear', factor: 2.5 } }],
    ['newer files', { rope_scaling: undefined, rope_parameters: { rope_type: 'linear', factor: 2.5 } }],
  ])('linear scaling of rotary frequencies in %s', (_, fields) => {
    expect(parseArchitecture({ ...config('Llama-2-7b'), ...fields }).rotaryScaling).toEqual({
      kind: RotaryScalingKind.LINEAR,
      factor: 2.5,
      lowFrequencyFactor: 0,
      highFrequencyFactor: 0,
      originalPositions: 0,
    });
  });

  test.each([
    ['older files', {}],
    ['newer files', { rope_scaling: undefined, rope_theta: undefined, rope_parameters: { ...LLAMA3.rope_scaling, rope_theta: 5e5 } }],
  ])('scaling of LLaMA 3 in %s', (_, fields) => {
    expect(parseArchitecture({ ...config('Llama-3.1-8B'), ...fields })).toMatchObject({
      rotaryBase: 5e5,
      rotaryScaling: {
        kind: RotaryScalingKind.LLAMA3,
        factor: 8,
        lowFrequencyFactor: 1,
        highFrequencyFactor: 4,
        originalPositions: 8192,
      },
    });
  });

  test.each<[string, Record<string, unknown>, number, readonly number[]]>([
    ['Mistral-7B-v0.1', {}, 4096, Array.from({ length: 32 }, (_, layer) => layer)],
    ['Mistral-7B-v0.1', { num_hidden_layers: 3, layer_types: ['full_attention', 'sliding_attention', 'full_attention'] }, 4096, [1]],
    ['Mistral-7B-v0.3', {}, 0, []],
    ['Qwen2.5-7B', { use_sliding_window: true, sliding_window: 100, max_window_layers: 26 }, 100, [26, 27]],
    ['Qwen2.5-7B', { use_sliding_window: true, sliding_window: 100, max_window_layers: 28 }, 0, []],
    ['Qwen2.5-7B', { use_sliding_window: true, max_window_layers: 0, num_hidden_layers: 2 }, 131_072, [0, 1]],
    ['Qwen3-8B', { use_sliding_window: true, sliding_window: 9, max_window_layers: 35 }, 9, [35]],
  ])('%s with %j slides in the blocks it says', (name, fields, slidingWindow, slidingLayers) => {
    const architecture = parseArchitecture({ ...config(name), ...fields });
    expect(architecture).toMatchObject({ slidingWindow, slidingLayers });
    const windows = planShapes(architecture, DataType.F16).blocks.map(({ shard }) => shard.attentionWindow);
    expect(windows).toEqual(windows.map((_, layer) => (slidingLayers.includes(layer) ? slidingWindow : 0)));
  });

  test('Mistral files that do not mention a window mean that of the first models', () => {
    const { sliding_window: _removed, ...rest } = config('Mistral-7B-v0.1');
    expect(parseArchitecture(rest).slidingWindow).toBe(4096);
  });
});

describe('fields that are read', () => {
  test('an explicit width of heads', () => {
    expect(parseArchitecture({ ...config('Llama-2-7b'), head_dim: 64 }).headDimension).toBe(64);
  });

  test('a null width of heads and no number of key and value heads', () => {
    const { num_key_value_heads: _removed, ...rest } = config('Llama-2-7b');
    expect(parseArchitecture({ ...rest, head_dim: null })).toMatchObject({ headDimension: 128, keyValueHeads: 32 });
  });

  test('the rotary base of newer files', () => {
    const { rope_theta: _removed, ...rest } = config('Qwen2.5-7B');
    const newer = {
      ...rest,
      rope_parameters: { rope_type: 'default', rope_theta: 5e5 },
      layer_types: Array<string>(28).fill('full_attention'),
    };
    expect(parseArchitecture(newer).rotaryBase).toBe(5e5);
    expect(parseArchitecture({ ...rest, rope_theta: 3e4, rope_parameters: { rope_type: 'default' } }).rotaryBase).toBe(3e4);
  });
});

describe('fields that change the computation are refused with their value', () => {
  test.each<[string, string, unknown, string]>([
    ['Llama-2-7b', 'hidden_act', 'gelu', '"gelu"'],
    ['Llama-2-7b', 'attention_bias', 'yes', '"yes"'],
    ['Llama-2-7b', 'rope_scaling', 'linear', '"linear"'],
    ['Llama-2-7b', 'layer_types', Array<string>(32).fill('sliding_attention'), '["sliding_attention"'],
    ['Mistral-7B-v0.1', 'attention_bias', true, 'true'],
    ['Mistral-7B-v0.1', 'sliding_window', 0, '0'],
    ['Mistral-7B-v0.1', 'layer_types', ['sliding_attention'], '["sliding_attention"]'],
    ['Mistral-7B-v0.3', 'layer_types', Array<string>(32).fill('sliding_attention'), '["sliding_attention"'],
    ['Qwen3-8B', 'attention_bias', 1, '1'],
    ['Llama-2-7b', 'partial_rotary_factor', 0.5, '0.5'],
    ['Llama-2-7b', 'quantization_config', { bits: 4 }, '{"bits":4}'],
    ['Llama-2-7b', 'sliding_window', 4096, '4096'],
    ['Llama-2-7b', 'head_dim', 63, '63'],
    ['Qwen2.5-7B', 'use_sliding_window', 'yes', '"yes"'],
    ['Qwen2.5-7B', 'use_mrope', true, 'true'],
    ['Qwen2.5-7B', 'attention_bias', false, 'false'],
    ['Qwen2.5-7B', 'layer_types', ['full_attention', 'sliding_attention'], '["full_attention","sliding_attention"]'],
    ['opt-125m', 'do_layer_norm_before', 0, '0'],
    ['opt-125m', 'activation_function', 'gelu', '"gelu"'],
    ['opt-125m', 'word_embed_proj_dim', 0, '0'],
    ['opt-125m', 'enable_bias', false, 'false'],
    ['opt-125m', 'layer_norm_elementwise_affine', false, 'false'],
    ['opt-125m', '_remove_final_layer_norm', 'no', '"no"'],
    ['opt-125m', 'num_key_value_heads', 4, '4'],
    ['opt-125m', 'head_dim', 32, '32'],
  ])('%s with %s = %j', (name, field, value, found) => {
    const error = errorOf({ ...config(name), [field]: value });
    expect(error.reason).toBe('UNSUPPORTED_MODEL');
    expect(error.message).toMatch(new RegExp(`^config\\.json: ${field} must be `));
    expect(error.message).toContain(`it is ${found}`);
  });

  test.each<[Record<string, unknown>, string]>([
    [
      { rope_parameters: { rope_type: 'yarn', factor: 8 } },
      'rope_parameters.rope_type must be "default" or "linear" or "llama3"; it is "yarn".',
    ],
    [{ rope_scaling: { type: 'dynamic', factor: 2 } }, 'rope_scaling.type must be "default" or "linear" or "llama3"; it is "dynamic".'],
    [{ rope_scaling: { factor: 2 } }, 'rope_scaling.factor must be absent or null; it is 2.'],
    [{ rope_scaling: { type: 'linear' } }, 'rope_scaling.factor must be a number above 0; it is missing.'],
    [
      { rope_scaling: { ...LLAMA3.rope_scaling, high_freq_factor: 1 } },
      'rope_scaling.high_freq_factor must be above low_freq_factor (1); it is 1.',
    ],
    [
      { rope_scaling: { ...LLAMA3.rope_scaling, original_max_position_embeddings: 8192 } },
      'rope_scaling.original_max_position_embeddings must be a whole number from 1 to 2048; it is 8192.',
    ],
    [
      { rope_parameters: { rope_type: 'default' }, rope_scaling: { type: 'linear', factor: 2 } },
      'rope_scaling must be absent or null; it is {"type":"linear","factor":2}.',
    ],
  ])('inside the rotary parameters %j', (fields, message) => {
    expect(errorOf({ ...config('Llama-2-7b'), ...fields }).message).toBe(`config.json: ${message}`);
  });

  test.each(['gpt2', 'constructor', 7, undefined])('model type %j, listing those that are supported', (type) => {
    const error = errorOf({ ...config('opt-125m'), model_type: type });
    expect(error.reason).toBe('UNSUPPORTED_MODEL');
    expect(error.message).toContain(
      `model_type must be one of qwen2, qwen3, llama, mistral, opt; it is ${type === undefined ? 'missing' : JSON.stringify(type)}`,
    );
  });
});

describe('sizes that cannot be', () => {
  test.each<[string, unknown]>([
    ['hidden_size', undefined],
    ['hidden_size', 0],
    ['hidden_size', -4096],
    ['hidden_size', 4096.5],
    ['hidden_size', '4096'],
    ['hidden_size', 1e9],
    ['num_hidden_layers', 1e6],
    ['vocab_size', 2 ** 31],
    ['num_attention_heads', 33],
    ['num_key_value_heads', 5],
    ['num_key_value_heads', 64],
    ['rms_norm_eps', 0],
    ['rope_theta', Infinity],
    ['tie_word_embeddings', 'yes'],
    ['rope_parameters', [1]],
  ])('%s = %p', (field, value) => {
    const error = errorOf({ ...config('Llama-2-7b'), [field]: value });
    expect(error.reason).toBe('UNSUPPORTED_MODEL');
    expect(error.message).toContain(field);
  });

  test.each([null, [], 'qwen2', 7])('a document that is %j', (document) => {
    expect(errorOf(document).message).toBe('config.json must hold one JSON object.');
  });
});

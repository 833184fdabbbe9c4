import { describe, expect, test } from '@jest/globals';
import { FeedForward, ModelFamily, Normalization, PositionEncoding } from '@secateur/proto/model';
import { countParameters } from '../../test/count-parameters.js';
import { SecateurError } from '../errors.js';
import { parseArchitecture } from './parse-architecture.js';

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
];

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
    expect(countParameters(parseArchitecture(config))).toBe(parameters);
  });

  test('Qwen2.5-0.5B', () => {
    expect(parseArchitecture(config('Qwen2.5-0.5B'))).toEqual({
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
    ['Llama-2-7b', 'rope_scaling', { type: 'linear', factor: 2 }, '{"type":"linear","factor":2}'],
    ['Llama-2-7b', 'hidden_act', 'gelu', '"gelu"'],
    ['Llama-2-7b', 'attention_bias', true, 'true'],
    ['Llama-2-7b', 'mlp_bias', true, 'true'],
    ['Llama-2-7b', 'partial_rotary_factor', 0.5, '0.5'],
    ['Llama-2-7b', 'quantization_config', { bits: 4 }, '{"bits":4}'],
    ['Llama-2-7b', 'sliding_window', 4096, '4096'],
    ['Llama-2-7b', 'head_dim', 63, '63'],
    ['Qwen2.5-7B', 'use_sliding_window', true, 'true'],
    ['Qwen2.5-7B', 'use_mrope', true, 'true'],
    ['Qwen2.5-7B', 'attention_bias', false, 'false'],
    ['Qwen2.5-7B', 'layer_types', ['full_attention', 'sliding_attention'], '["full_attention","sliding_attention"]'],
    ['Qwen2.5-7B', 'rope_scaling', { type: 'yarn', factor: 4 }, '{"type":"yarn","factor":4}'],
    ['opt-125m', 'do_layer_norm_before', false, 'false'],
    ['opt-125m', 'activation_function', 'gelu', '"gelu"'],
    ['opt-125m', 'word_embed_proj_dim', 512, '512'],
    ['opt-125m', 'enable_bias', false, 'false'],
    ['opt-125m', 'layer_norm_elementwise_affine', false, 'false'],
    ['opt-125m', '_remove_final_layer_norm', true, 'true'],
    ['opt-125m', 'num_key_value_heads', 4, '4'],
    ['opt-125m', 'head_dim', 32, '32'],
  ])('%s with %s = %j', (name, field, value, found) => {
    const error = errorOf({ ...config(name), [field]: value });
    expect(error.reason).toBe('UNSUPPORTED_MODEL');
    expect(error.message).toMatch(new RegExp(`^config\\.json: ${field} must be `));
    expect(error.message).toContain(`it is ${found}`);
  });

  test('inside the rotary parameters', () => {
    const error = errorOf({ ...config('Llama-2-7b'), rope_parameters: { rope_type: 'llama3', rope_theta: 5e5, factor: 8 } });
    expect(error.message).toBe('config.json: rope_parameters.rope_type must be "default"; it is "llama3".');
  });

  test('opt-350m by the place of its normalisation', () => {
    const error = errorOf({ ...OPT, ...optSizes(1024, 4096, 24, 16), do_layer_norm_before: false, word_embed_proj_dim: 512 });
    expect(error.message).toContain('do_layer_norm_before');
  });

  test.each(['gpt2', 'constructor', 7, undefined])('model type %j, listing those that are supported', (type) => {
    const error = errorOf({ ...config('opt-125m'), model_type: type });
    expect(error.reason).toBe('UNSUPPORTED_MODEL');
    expect(error.message).toContain('model_type must be one of qwen2, llama, opt');
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

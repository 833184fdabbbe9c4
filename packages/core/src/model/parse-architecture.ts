import { FeedForward, ModelFamily, Normalization, PositionEncoding, type Architecture } from '@secateur/proto/model';
import { ConfigReader } from './config-reader.js';

const MAXIMUM_WIDTH = 1 << 20;
const MAXIMUM_LAYERS = 10_000;
const MAXIMUM_VOCABULARY = 1 << 24;
const MAXIMUM_POSITIONS = 1 << 24;
/** Rows of OPT's position table before the one of position 0. */
const OPT_POSITION_OFFSET = 2;

const PARSERS: Readonly<Record<string, (config: ConfigReader) => Architecture>> = {
  qwen2: parseQwen2,
  llama: parseLlama,
  opt: parseOpt,
};

/**
 * What a Hugging Face config.json says the model computes. Every field that changes the computation is read, or refused by name with
 * UNSUPPORTED_MODEL when this version does not compute it.
 */
export function parseArchitecture(config: unknown): Architecture {
  const reader = new ConfigReader(config);
  const type = reader.get('model_type');
  const parse = typeof type === 'string' && Object.hasOwn(PARSERS, type) ? PARSERS[type] : undefined;
  if (parse === undefined) throw reader.refuse('model_type', `one of ${Object.keys(PARSERS).join(', ')}`);
  reader.refuseGiven('quantization_config');
  return parse(reader);
}

function parseQwen2(config: ConfigReader): Architecture {
  config.require('use_sliding_window', false);
  config.require('use_mrope', false);
  config.require('attention_bias', true);
  return parseRotary(config, ModelFamily.QWEN2);
}

function parseLlama(config: ConfigReader): Architecture {
  config.require('attention_bias', false);
  config.require('mlp_bias', false);
  config.refuseGiven('sliding_window');
  return parseRotary(config, ModelFamily.LLAMA);
}

/** What Qwen2 and LLaMA share. `pretraining_tp`, `max_window_layers` and dropout do not change what is computed here. */
function parseRotary(config: ConfigReader, family: ModelFamily): Architecture {
  config.require('hidden_act', 'silu');
  config.requireEach('layer_types', 'full_attention');
  const heads = parseHeads(config);
  if (heads.headDimension % 2 !== 0) throw config.refuse('head_dim', 'even, so that rotary pairs can be formed');
  return {
    family,
    ...heads,
    intermediateSize: config.size('intermediate_size', MAXIMUM_WIDTH),
    layers: config.size('num_hidden_layers', MAXIMUM_LAYERS),
    vocabularySize: config.size('vocab_size', MAXIMUM_VOCABULARY),
    maximumPositions: config.size('max_position_embeddings', MAXIMUM_POSITIONS, 2048),
    normalization: Normalization.RMS,
    normalizationEpsilon: config.positive('rms_norm_eps', 1e-6),
    positionEncoding: PositionEncoding.ROTARY,
    rotaryBase: parseRotaryBase(config),
    learnedPositionOffset: 0,
    feedForward: FeedForward.GATED_SILU,
    tiedEmbeddings: config.flag('tie_word_embeddings', false),
  };
}

/** Newer files keep the base and the kind of rotary embedding in one object. */
function parseRotaryBase(config: ConfigReader): number {
  config.refuseGiven('rope_scaling');
  config.require('partial_rotary_factor', 1);
  const parameters = config.section('rope_parameters');
  parameters.require('rope_type', 'default');
  parameters.require('partial_rotary_factor', 1);
  return parameters.positive('rope_theta', config.positive('rope_theta', 10_000));
}

function parseOpt(config: ConfigReader): Architecture {
  config.require('do_layer_norm_before', true);
  config.require('enable_bias', true);
  config.require('layer_norm_elementwise_affine', true);
  config.require('_remove_final_layer_norm', false);
  config.require('activation_function', 'relu');
  const heads = parseHeads(config);
  config.require('num_key_value_heads', heads.attentionHeads);
  config.require('head_dim', heads.hiddenSize / heads.attentionHeads);
  config.require('word_embed_proj_dim', heads.hiddenSize);
  return {
    family: ModelFamily.OPT,
    ...heads,
    intermediateSize: config.size('ffn_dim', MAXIMUM_WIDTH),
    layers: config.size('num_hidden_layers', MAXIMUM_LAYERS),
    vocabularySize: config.size('vocab_size', MAXIMUM_VOCABULARY),
    maximumPositions: config.size('max_position_embeddings', MAXIMUM_POSITIONS),
    normalization: Normalization.LAYER,
    normalizationEpsilon: 1e-5,
    positionEncoding: PositionEncoding.LEARNED,
    rotaryBase: 0,
    learnedPositionOffset: OPT_POSITION_OFFSET,
    feedForward: FeedForward.RELU,
    tiedEmbeddings: config.flag('tie_word_embeddings', true),
  };
}

function parseHeads(config: ConfigReader): Pick<Architecture, 'hiddenSize' | 'attentionHeads' | 'keyValueHeads' | 'headDimension'> {
  const hiddenSize = config.size('hidden_size', MAXIMUM_WIDTH);
  const attentionHeads = config.size('num_attention_heads', hiddenSize);
  const keyValueHeads = config.size('num_key_value_heads', attentionHeads, attentionHeads);
  if (attentionHeads % keyValueHeads !== 0)
    throw config.refuse('num_key_value_heads', `a divisor of num_attention_heads (${attentionHeads})`);
  if (config.get('head_dim') === undefined && hiddenSize % attentionHeads !== 0) {
    throw config.refuse('num_attention_heads', `a divisor of hidden_size (${hiddenSize})`);
  }
  const headDimension = config.size('head_dim', MAXIMUM_WIDTH, hiddenSize / attentionHeads);
  return { hiddenSize, attentionHeads, keyValueHeads, headDimension };
}

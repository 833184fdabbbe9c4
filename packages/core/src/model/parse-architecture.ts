import { AttentionBiases, FeedForward, ModelFamily, Normalization, PositionEncoding, type Architecture } from '@secateur/proto/model';
import { ConfigReader } from './config-reader.js';
import { parseRotary } from './parse-rotary.js';
import { parseMistralWindows, parseQwenWindows } from './parse-windows.js';

const MAXIMUM_WIDTH = 1 << 20;
const MAXIMUM_LAYERS = 10_000;
const MAXIMUM_VOCABULARY = 1 << 24;
const MAXIMUM_POSITIONS = 1 << 24;
/** Rows of OPT's position table before the one of position 0. */
const OPT_POSITION_OFFSET = 2;
/** Of Qwen3 files that do not tell it. */
const QWEN3_HEAD_DIMENSION = 128;

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

const PARSERS: Readonly<Record<string, (config: ConfigReader) => Architecture>> = {
  qwen2: parseQwen2,
  qwen3: parseQwen3,
  llama: parseLlama,
  mistral: parseMistral,
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
  config.require('use_mrope', false);
  config.require('attention_bias', true);
  config.require('mlp_bias', false);
  const shared = parseGated(config, ModelFamily.QWEN2);
  return { ...shared, ...parseQwenWindows(config, shared.layers), attentionBiases: AttentionBiases.INPUTS };
}

function parseQwen3(config: ConfigReader): Architecture {
  config.require('use_mrope', false);
  config.require('mlp_bias', false);
  const shared = parseGated(config, ModelFamily.QWEN3, QWEN3_HEAD_DIMENSION);
  return {
    ...shared,
    ...parseQwenWindows(config, shared.layers),
    queryKeyNormalization: true,
    attentionBiases: parseAttentionBiases(config),
  };
}

function parseLlama(config: ConfigReader): Architecture {
  config.refuseGiven('sliding_window');
  const shared = parseGated(config, ModelFamily.LLAMA);
  config.words('layer_types', shared.layers, ['full_attention']);
  return { ...shared, attentionBiases: parseAttentionBiases(config), feedForwardBiases: config.flag('mlp_bias', false) };
}

function parseMistral(config: ConfigReader): Architecture {
  config.require('attention_bias', false);
  config.require('mlp_bias', false);
  const shared = parseGated(config, ModelFamily.MISTRAL);
  return { ...shared, ...parseMistralWindows(config, shared.layers) };
}

function parseAttentionBiases(config: ConfigReader): AttentionBiases {
  return config.flag('attention_bias', false) ? AttentionBiases.ALL : AttentionBiases.NONE;
}

/** What all families but OPT share. `pretraining_tp` and dropout do not change what is computed here. */
function parseGated(config: ConfigReader, family: ModelFamily, defaultHeadDimension?: number): Architecture {
  config.require('hidden_act', 'silu');
  const heads = parseHeads(config, defaultHeadDimension);
  if (heads.headDimension % 2 !== 0) throw config.refuse('head_dim', 'even, so that rotary pairs can be formed');
  const maximumPositions = config.size('max_position_embeddings', MAXIMUM_POSITIONS, 2048);
  return {
    ...PLAIN,
    family,
    ...heads,
    intermediateSize: config.size('intermediate_size', MAXIMUM_WIDTH),
    layers: config.size('num_hidden_layers', MAXIMUM_LAYERS),
    vocabularySize: config.size('vocab_size', MAXIMUM_VOCABULARY),
    maximumPositions,
    normalization: Normalization.RMS,
    normalizationEpsilon: config.positive('rms_norm_eps', 1e-6),
    positionEncoding: PositionEncoding.ROTARY,
    ...parseRotary(config, maximumPositions),
    learnedPositionOffset: 0,
    feedForward: FeedForward.GATED_SILU,
    tiedEmbeddings: config.flag('tie_word_embeddings', false),
  };
}

function parseOpt(config: ConfigReader): Architecture {
  config.require('enable_bias', true);
  config.require('layer_norm_elementwise_affine', true);
  config.require('activation_function', 'relu');
  const heads = parseHeads(config);
  config.require('num_key_value_heads', heads.attentionHeads);
  config.require('head_dim', heads.hiddenSize / heads.attentionHeads);
  const normalizesBefore = config.flag('do_layer_norm_before', true);
  const embeddingSize = config.size('word_embed_proj_dim', MAXIMUM_WIDTH, heads.hiddenSize);
  return {
    ...PLAIN,
    family: ModelFamily.OPT,
    ...heads,
    intermediateSize: config.size('ffn_dim', MAXIMUM_WIDTH),
    layers: config.size('num_hidden_layers', MAXIMUM_LAYERS),
    vocabularySize: config.size('vocab_size', MAXIMUM_VOCABULARY),
    maximumPositions: config.size('max_position_embeddings', MAXIMUM_POSITIONS),
    normalization: Normalization.LAYER,
    normalizationEpsilon: 1e-5,
    postNormalization: !normalizesBefore,
    finalNormalization: normalizesBefore && !config.flag('_remove_final_layer_norm', false),
    positionEncoding: PositionEncoding.LEARNED,
    rotaryBase: 0,
    learnedPositionOffset: OPT_POSITION_OFFSET,
    feedForward: FeedForward.RELU,
    tiedEmbeddings: config.flag('tie_word_embeddings', true),
    embeddingSize: embeddingSize === heads.hiddenSize ? 0 : embeddingSize,
    attentionBiases: AttentionBiases.ALL,
    feedForwardBiases: true,
  };
}

function parseHeads(
  config: ConfigReader,
  defaultHeadDimension?: number,
): Pick<Architecture, 'hiddenSize' | 'attentionHeads' | 'keyValueHeads' | 'headDimension'> {
  const hiddenSize = config.size('hidden_size', MAXIMUM_WIDTH);
  const attentionHeads = config.size('num_attention_heads', hiddenSize);
  const keyValueHeads = config.size('num_key_value_heads', attentionHeads, attentionHeads);
  if (attentionHeads % keyValueHeads !== 0)
    throw config.refuse('num_key_value_heads', `a divisor of num_attention_heads (${attentionHeads})`);
  if (config.get('head_dim') === undefined && defaultHeadDimension === undefined && hiddenSize % attentionHeads !== 0) {
    throw config.refuse('num_attention_heads', `a divisor of hidden_size (${hiddenSize})`);
  }
  const headDimension = config.size('head_dim', MAXIMUM_WIDTH, defaultHeadDimension ?? hiddenSize / attentionHeads);
  return { hiddenSize, attentionHeads, keyValueHeads, headDimension };
}

import { DataType, TensorRole } from '../proto/dist/secateur/v1/model.js';

export const CHUNK_BYTES = 1 << 20;

const HIDDEN = 4096;
const INTERMEDIATE = 5376;

/** The shape of a block, as the engine takes it. @type {import('@secateur/native').EngineArchitecture} */
export const ARCHITECTURE = {
  hiddenSize: HIDDEN,
  intermediateSize: INTERMEDIATE,
  attentionHeads: 32,
  keyValueHeads: 32,
  headDimension: HIDDEN / 32,
  vocabularySize: 256,
  maximumPositions: 1024,
  normalization: 'rms',
  normalizationEpsilon: 1e-6,
  postNormalization: false,
  finalNormalization: true,
  embeddingSize: 0,
  positionEncoding: 'rotary',
  rotaryBase: 10_000,
  rotaryScaling: null,
  learnedPositionOffset: 0,
  feedForward: 'gated-silu',
};

/** The tensors of a block, bfloat16; their digests are the server's to say. */
export const TENSORS = /** @type {[TensorRole, number[]][]} */ ([
  [TensorRole.ATTENTION_NORM_WEIGHT, [HIDDEN]],
  [TensorRole.QUERY_WEIGHT, [HIDDEN, HIDDEN]],
  [TensorRole.KEY_WEIGHT, [HIDDEN, HIDDEN]],
  [TensorRole.VALUE_WEIGHT, [HIDDEN, HIDDEN]],
  [TensorRole.OUTPUT_WEIGHT, [HIDDEN, HIDDEN]],
  [TensorRole.FEED_FORWARD_NORM_WEIGHT, [HIDDEN]],
  [TensorRole.GATE_WEIGHT, [INTERMEDIATE, HIDDEN]],
  [TensorRole.UP_WEIGHT, [INTERMEDIATE, HIDDEN]],
  [TensorRole.DOWN_WEIGHT, [HIDDEN, INTERMEDIATE]],
]).map(([role, shape], index) => {
  const name = `tensor-${index}`;
  return { name, role, dataType: DataType.BF16, shape, resource: name, bytes: 2 * shape.reduce((product, size) => product * size) };
});

export const TOTAL_BYTES = TENSORS.reduce((sum, { bytes }) => sum + bytes, 0);

const identity = (/** @type {Buffer} */ bytes) => bytes;

/** One method that streams bytes as they are. */
export const BARE_SERVICE = {
  pull: {
    path: '/bench.Bare/Pull',
    requestStream: false,
    responseStream: true,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  },
};

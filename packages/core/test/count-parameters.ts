import { AttentionBiases, FeedForward, Normalization, PositionEncoding, type Architecture } from '@secateur/proto/model';

/** Parameters of a model, a tied head counted once. */
export function countParameters(architecture: Architecture): number {
  const { hiddenSize, embeddingSize, vocabularySize, layers, maximumPositions, learnedPositionOffset } = architecture;
  const table = vocabularySize * (embeddingSize || hiddenSize);
  const projections = 2 * hiddenSize * embeddingSize;
  const positions =
    architecture.positionEncoding === PositionEncoding.LEARNED ? (maximumPositions + learnedPositionOffset) * hiddenSize : 0;
  const norm = architecture.normalization === Normalization.LAYER ? 2 * hiddenSize : hiddenSize;
  const block = countAttention(architecture) + countFeedForward(architecture) + 2 * norm;
  const finalNorm = architecture.finalNormalization ? norm : 0;
  return table + projections + positions + layers * block + finalNorm + (architecture.tiedEmbeddings ? 0 : table);
}

function countAttention(architecture: Architecture): number {
  const { hiddenSize, attentionHeads, keyValueHeads, headDimension, attentionBiases, queryKeyNormalization } = architecture;
  const queryRows = attentionHeads * headDimension;
  const inputRows = queryRows + 2 * keyValueHeads * headDimension;
  const inputBiases = attentionBiases === AttentionBiases.NONE ? 0 : inputRows;
  const outputBiases = attentionBiases === AttentionBiases.ALL ? hiddenSize : 0;
  const norms = queryKeyNormalization ? 2 * headDimension : 0;
  return inputRows * hiddenSize + inputBiases + hiddenSize * queryRows + outputBiases + norms;
}

function countFeedForward({ feedForward, feedForwardBiases, hiddenSize, intermediateSize }: Architecture): number {
  const raising = feedForward === FeedForward.GATED_SILU ? 2 : 1;
  const biases = feedForwardBiases ? raising * intermediateSize + hiddenSize : 0;
  return (raising + 1) * hiddenSize * intermediateSize + biases;
}

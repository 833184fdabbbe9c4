import { FeedForward, ModelFamily, Normalization, PositionEncoding, type Architecture } from '@secateur/proto/model';

/** Parameters of a model, a tied head counted once. */
export function countParameters(architecture: Architecture): number {
  const { hiddenSize, vocabularySize, layers, maximumPositions, learnedPositionOffset } = architecture;
  const table = vocabularySize * hiddenSize;
  const positions =
    architecture.positionEncoding === PositionEncoding.LEARNED ? (maximumPositions + learnedPositionOffset) * hiddenSize : 0;
  const norm = architecture.normalization === Normalization.LAYER ? 2 * hiddenSize : hiddenSize;
  const block = countAttention(architecture) + countFeedForward(architecture) + 2 * norm;
  return table + positions + layers * block + norm + (architecture.tiedEmbeddings ? 0 : table);
}

function countAttention({ family, hiddenSize, attentionHeads, keyValueHeads, headDimension }: Architecture): number {
  const queryRows = attentionHeads * headDimension;
  const inputRows = queryRows + 2 * keyValueHeads * headDimension;
  const inputBiases = family === ModelFamily.LLAMA ? 0 : inputRows;
  const outputBiases = family === ModelFamily.OPT ? hiddenSize : 0;
  return inputRows * hiddenSize + inputBiases + hiddenSize * queryRows + outputBiases;
}

function countFeedForward({ feedForward, hiddenSize, intermediateSize }: Architecture): number {
  const matrix = hiddenSize * intermediateSize;
  return feedForward === FeedForward.GATED_SILU ? 3 * matrix : 2 * matrix + intermediateSize + hiddenSize;
}

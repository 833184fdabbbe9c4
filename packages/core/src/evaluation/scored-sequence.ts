import { SecateurError } from '../errors.js';

/** Tokens of which those from the position `first` on are scored. */
export interface ScoredSequence {
  readonly ids: Int32Array;
  /** At least 1: nothing predicts the first token. */
  readonly first: number;
}

/**
 * The tokens of an answer in its context. `whole` are those of both texts together, of which as many belong to the context as it has by
 * itself. What is longer than the model takes loses its beginning. `where` names the question in errors.
 */
export function sequenceOf(whole: Int32Array, contextTokens: number, maximumTokens: number, where: string): ScoredSequence {
  const cut = Math.max(0, whole.length - maximumTokens);
  const first = contextTokens - cut;
  if (first < 1 || contextTokens >= whole.length) {
    throw new SecateurError(
      'INVALID_DATA',
      `${where}: of ${whole.length} tokens ${whole.length - contextTokens} are the answer's; there must be at least one, and one before them among the ${maximumTokens} the model takes.`,
    );
  }
  return { ids: whole.subarray(cut), first };
}

/**
 * The windows of a text as sequences. The first window is scored wholly, the later ones only in what the one before did not score.
 * `windows`: row-major [samples, sequenceLength], each beginning `stride` tokens after the one before.
 */
export function sequencesOfWindows(windows: Int32Array, sequenceLength: number, stride: number): ScoredSequence[] {
  return Array.from({ length: windows.length / sequenceLength }, (_, window) => ({
    ids: windows.subarray(window * sequenceLength, (window + 1) * sequenceLength),
    first: window === 0 ? 1 : Math.max(1, sequenceLength - stride),
  }));
}

/** exp of the mean loss of all scored tokens. `losses`: the mean over the scored tokens of each sequence. */
export function perplexityOf(sequences: readonly ScoredSequence[], losses: readonly number[]): number {
  let sum = 0;
  let tokens = 0;
  for (const [index, { ids, first }] of sequences.entries()) {
    const scored = ids.length - first;
    sum += losses[index]! * scored;
    tokens += scored;
  }
  return Math.exp(sum / tokens);
}

import { SecateurError } from '@secateur/core';
import { uniformInt } from 'pure-rand/distribution/uniformInt';
import { mersenne } from 'pure-rand/generator/mersenne';

/** Tokens of documents that are kept for another draw (64 MiB). */
const REMEMBERED_TOKENS = 1 << 24;

/** Documents as token ids. */
export interface TokenizedDocuments {
  readonly path: string;
  readonly count: number;
  read(index: number): Promise<Int32Array>;
}

/**
 * Draws windows of `sequenceLength` tokens as calibration loaders do: for each window a random document (drawn again and again) among those
 * with more than `sequenceLength` tokens, and a random place in it. The numbers are integers of MT19937 seeded with the XOR of the seed's
 * 32-bit halves, so the same seed draws the same windows everywhere. Row-major [samples, sequenceLength].
 */
export async function drawWindows(
  documents: TokenizedDocuments,
  samples: number,
  sequenceLength: number,
  seed: number,
): Promise<Int32Array> {
  const generator = mersenne(Math.trunc(seed / 2 ** 32) ^ (seed % 2 ** 32));
  const read = rememberReads(documents);
  const candidates = Uint32Array.from({ length: documents.count }, (_, index) => index);
  let candidateCount = candidates.length;
  let longest = 0;
  const ids = new Int32Array(samples * sequenceLength);
  for (let sample = 0; sample < samples;) {
    if (candidateCount === 0) throw tooLittleText(documents, longest, sequenceLength);
    const place = uniformInt(generator, 0, candidateCount - 1);
    const tokens = await read(candidates[place] ?? 0);
    if (tokens.length <= sequenceLength) {
      // Too short ones are left out once they are seen; every long one stays as likely as the others.
      longest = Math.max(longest, tokens.length);
      candidateCount -= 1;
      candidates[place] = candidates[candidateCount] ?? 0;
      continue;
    }
    const start = uniformInt(generator, 0, tokens.length - sequenceLength - 1);
    ids.set(tokens.subarray(start, start + sequenceLength), sample * sequenceLength);
    sample += 1;
  }
  return ids;
}

/** Reads documents, keeping a bounded number of tokens for the next draws. */
function rememberReads(documents: TokenizedDocuments): (index: number) => Promise<Int32Array> {
  const remembered = new Map<number, Int32Array>();
  let rememberedTokens = 0;
  return async (index) => {
    const known = remembered.get(index);
    if (known !== undefined) return known;
    const tokens = await documents.read(index);
    if (rememberedTokens + tokens.length > REMEMBERED_TOKENS) {
      remembered.clear();
      rememberedTokens = 0;
    }
    remembered.set(index, tokens);
    rememberedTokens += tokens.length;
    return tokens;
  };
}

function tooLittleText({ path, count }: TokenizedDocuments, longest: number, sequenceLength: number): SecateurError {
  const found =
    count === 0
      ? 'it holds no document'
      : count === 1
        ? `its text has ${longest} tokens`
        : `the longest of its ${count} documents has ${longest} tokens`;
  return new SecateurError(
    'INVALID_DATA',
    `${path}: ${found}, samples of ${sequenceLength} tokens need a document of at least ${sequenceLength + 1}; give more text or a shorter sequence length.`,
  );
}

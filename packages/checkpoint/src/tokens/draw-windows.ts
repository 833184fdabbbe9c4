import { SecateurError } from '@secateur/core';
import { uniformInt } from 'pure-rand/distribution/uniformInt';
import { seedGenerator } from './seed-generator.js';

/** Tokens of documents that are kept for another draw (64 MiB). */
const REMEMBERED_TOKENS = 1 << 24;

/** Documents as token ids. */
export interface TokenizedDocuments {
  /** Names them in errors. */
  readonly name: string;
  readonly count: number;
  read(index: number): Promise<Int32Array>;
}

/** Row-major windows [samples, sequenceLength], and the number of documents they were taken from. */
export interface Windows {
  readonly ids: Int32Array;
  readonly documents: number;
}

/**
 * Draws windows of `sequenceLength` tokens as calibration loaders do: for each window a random document (drawn again and again) among those
 * with more than `sequenceLength` tokens, and a random place in it. Only documents that are drawn are read. The same seed draws the same
 * windows everywhere.
 */
export async function drawWindows(documents: TokenizedDocuments, samples: number, sequenceLength: number, seed: number): Promise<Windows> {
  const generator = seedGenerator(seed);
  const read = rememberReads(documents);
  const candidates = Uint32Array.from({ length: documents.count }, (_, index) => index);
  let candidateCount = candidates.length;
  let longest = 0;
  const ids = new Int32Array(samples * sequenceLength);
  const used = new Set<number>();
  for (let sample = 0; sample < samples;) {
    if (candidateCount === 0) throw tooLittleText(documents, longest, sequenceLength);
    const place = uniformInt(generator, 0, candidateCount - 1);
    const index = candidates[place] ?? 0;
    const tokens = await read(index);
    if (tokens.length <= sequenceLength) {
      // Too short ones are left out once they are seen; every long one stays as likely as the others.
      longest = Math.max(longest, tokens.length);
      candidateCount -= 1;
      candidates[place] = candidates[candidateCount] ?? 0;
      continue;
    }
    const start = uniformInt(generator, 0, tokens.length - sequenceLength - 1);
    ids.set(tokens.subarray(start, start + sequenceLength), sample * sequenceLength);
    used.add(index);
    sample += 1;
  }
  return { ids, documents: used.size };
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

function tooLittleText({ name, count }: TokenizedDocuments, longest: number, sequenceLength: number): SecateurError {
  const found =
    count === 0
      ? 'it holds no document'
      : count === 1
        ? `its text has ${longest} tokens`
        : `the longest of its ${count} documents has ${longest} tokens`;
  const joined = count > 1 ? ', or join the documents (--sampling concatenated)' : '';
  return new SecateurError(
    'INVALID_DATA',
    `${name}: ${found}, samples of ${sequenceLength} tokens need a document of at least ${sequenceLength + 1}; ${sequenceLength + 1 - longest} are missing. Give more text${suggestSequenceLength(longest - 1)}${joined}.`,
  );
}

/** What else would do, if a sample may be that long at most. */
export function suggestSequenceLength(longest: number): string {
  return longest < 2 ? '' : `, or ask for samples of at most ${longest} tokens (--seq-len ${longest})`;
}

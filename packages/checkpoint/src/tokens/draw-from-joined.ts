import { SecateurError } from '@secateur/core';
import { uniformInt } from 'pure-rand/distribution/uniformInt';
import type { RandomGenerator } from 'pure-rand/types/RandomGenerator';
import type { Documents } from './documents.js';
import { suggestSequenceLength, type Windows } from './draw-windows.js';
import { seedGenerator } from './seed-generator.js';
import { MAXIMUM_TEXT_BYTES } from '../files/text.js';

/** Stands between the documents, as in the loader of WikiText-2 for calibration in the published code. */
const SEPARATOR = ' ';

export interface JoinedSource {
  /** Names the documents in errors. */
  readonly name: string;
  readonly documents: Pick<Documents, 'count' | 'read'>;
  readonly encode: (text: string) => Promise<Int32Array>;
  /** Bytes that are joined at most, since the text is tokenised as a whole. Defaults to 64 MiB. */
  readonly maximumBytes?: number;
}

/**
 * Joins all documents to one text, tokenises it and draws windows of `sequenceLength` tokens at random places. When the documents are too
 * large together, random ones are joined instead, each at most once. The same seed draws the same windows everywhere.
 */
export async function drawFromJoined(source: JoinedSource, samples: number, sequenceLength: number, seed: number): Promise<Windows> {
  const generator = seedGenerator(seed);
  const texts = (await readAllTexts(source)) ?? (await readRandomTexts(source, generator));
  const tokens = await source.encode(texts.join(SEPARATOR));
  if (tokens.length <= sequenceLength) throw tooLittleText(source, tokens.length, sequenceLength);
  const ids = new Int32Array(samples * sequenceLength);
  for (let sample = 0; sample < samples; sample++) {
    const start = uniformInt(generator, 0, tokens.length - sequenceLength - 1);
    ids.set(tokens.subarray(start, start + sequenceLength), sample * sequenceLength);
  }
  return { ids, documents: texts.length };
}

/** All texts in order; undefined when they are too large together. */
async function readAllTexts({ documents, maximumBytes = MAXIMUM_TEXT_BYTES }: JoinedSource): Promise<string[] | undefined> {
  const texts: string[] = [];
  let bytes = 0;
  for (let index = 0; index < documents.count; index++) {
    const text = await documents.read(index);
    bytes += Buffer.byteLength(text);
    if (bytes > maximumBytes) return undefined;
    texts.push(text);
  }
  return texts;
}

/** Texts in random order, up to the first that would be too much. */
async function readRandomTexts(
  { documents, maximumBytes = MAXIMUM_TEXT_BYTES }: JoinedSource,
  generator: RandomGenerator,
): Promise<string[]> {
  const order = Uint32Array.from({ length: documents.count }, (_, index) => index);
  const texts: string[] = [];
  let bytes = 0;
  for (let place = 0; place < order.length; place++) {
    const drawn = uniformInt(generator, place, order.length - 1);
    const index = order[drawn] ?? 0;
    order[drawn] = order[place] ?? 0;
    const text = await documents.read(index);
    bytes += Buffer.byteLength(text);
    if (bytes > maximumBytes && texts.length > 0) break;
    texts.push(text);
  }
  return texts;
}

function tooLittleText({ name, documents }: JoinedSource, tokens: number, sequenceLength: number): SecateurError {
  const found = documents.count === 1 ? `its text has ${tokens} tokens` : `its ${documents.count} documents have ${tokens} tokens together`;
  return new SecateurError(
    'INVALID_DATA',
    `${name}: ${found}, samples of ${sequenceLength} tokens need at least ${sequenceLength + 1}; ${sequenceLength + 1 - tokens} are missing. Give more text${suggestSequenceLength(tokens - 1)}.`,
  );
}

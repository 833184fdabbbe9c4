import { extname } from 'node:path';
import { DEFAULT_CALIBRATION_SAMPLES, SecateurError } from '@secateur/core';
import { BackgroundTokenizer } from '../tokenizer/background-tokenizer.js';
import { openDocuments, type Documents } from './documents.js';
import { drawWindows } from './draw-windows.js';
import { readTokenIds } from './token-id-file.js';
import { makeTokenSet, MAXIMUM_TOKENS, type TokenConsumer, type TokenSet, type TokenSource } from './token-set.js';

/** Stands between documents when a .jsonl file is read as one text. */
const DOCUMENT_SEPARATOR = '\n\n';

export interface LoadOptions {
  readonly signal?: AbortSignal | undefined;
}

/** Tokens to calibrate with: the given ids, or random windows of the documents of a text. */
export async function loadCalibrationTokens(source: TokenSource, model: TokenConsumer, { signal }: LoadOptions = {}): Promise<TokenSet> {
  checkSource(source);
  if (isTokenIdFile(source.path)) return loadTokenIds(source, model);
  const samples = source.samples === 0 ? DEFAULT_CALIBRATION_SAMPLES : source.samples;
  const sequenceLength = textSequenceLength(source, model);
  if (samples * sequenceLength > MAXIMUM_TOKENS) throw tooManyTokens(samples, sequenceLength);
  return withText(source, model, signal, async (documents, tokenizer) => {
    const read = async (index: number): Promise<Int32Array> => tokenizer.encode(await documents.read(index));
    const ids = await drawWindows({ path: source.path, count: documents.count, read }, samples, sequenceLength, source.seed);
    return makeTokenSet(source.path, ids, sequenceLength, model.vocabularySize);
  });
}

export interface EvaluationLoadOptions extends LoadOptions {
  /** Tokens from the start of one window of text to the start of the next; the window's length when 0. */
  readonly stride?: number;
}

/**
 * Tokens to measure with: the given ids, or the whole text as windows, each `stride` tokens after the one before; what is left at the end
 * of the text and fills no window is left out.
 */
export async function loadEvaluationTokens(
  source: TokenSource,
  model: TokenConsumer,
  { signal, stride: requestedStride = 0 }: EvaluationLoadOptions = {},
): Promise<TokenSet> {
  checkSource(source);
  if (isTokenIdFile(source.path)) {
    if (requestedStride === 0) return loadTokenIds(source, model);
    throw new SecateurError('INVALID_REQUEST', `${source.path}: token ids are windows already; a stride is for text.`);
  }
  const sequenceLength = textSequenceLength(source, model);
  const stride = requestedStride === 0 ? sequenceLength : requestedStride;
  if (stride > sequenceLength) {
    throw new SecateurError('INVALID_REQUEST', `A stride of ${stride} would skip text between windows of ${sequenceLength} tokens.`);
  }
  return withText(source, model, signal, async (documents, tokenizer) => {
    const texts: string[] = [];
    for (let index = 0; index < documents.count; index++) texts.push(await documents.read(index));
    const tokens = await tokenizer.encode(texts.join(DOCUMENT_SEPARATOR));
    const windows = Math.max(0, Math.floor((tokens.length - sequenceLength) / stride) + 1);
    const samples = source.samples === 0 ? windows : source.samples;
    if (windows === 0 || samples > windows) {
      const needed = sequenceLength + Math.max(0, samples - 1) * stride;
      throw new SecateurError(
        'INVALID_DATA',
        `${source.path}: its text has ${tokens.length} tokens, ${Math.max(1, samples)} samples of ${sequenceLength} need ${needed}.`,
      );
    }
    if (samples * sequenceLength > MAXIMUM_TOKENS) throw tooManyTokens(samples, sequenceLength);
    const ids = new Int32Array(samples * sequenceLength);
    for (let window = 0; window < samples; window++) {
      ids.set(tokens.subarray(window * stride, window * stride + sequenceLength), window * sequenceLength);
    }
    return makeTokenSet(source.path, ids, sequenceLength, model.vocabularySize);
  });
}

async function loadTokenIds(source: TokenSource, model: TokenConsumer): Promise<TokenSet> {
  const { ids, sequenceLength } = await readTokenIds(source, model);
  return makeTokenSet(source.path, ids, sequenceLength, model.vocabularySize);
}

async function withText<T>(
  source: TokenSource,
  { directory, allowedRoots }: TokenConsumer,
  signal: AbortSignal | undefined,
  use: (documents: Documents, tokenizer: BackgroundTokenizer) => Promise<T>,
): Promise<T> {
  const documents = await openDocuments(source.path, { allowedRoots });
  try {
    const tokenizer = new BackgroundTokenizer({ directory, allowedRoots }, signal);
    try {
      return await use(documents, tokenizer);
    } finally {
      await tokenizer.close();
    }
  } finally {
    await documents.close();
  }
}

function isTokenIdFile(path: string): boolean {
  return extname(path).toLowerCase() === '.safetensors';
}

function checkSource({ samples, sequenceLength, seed }: TokenSource): void {
  for (const [field, value] of Object.entries({ samples, sequenceLength, seed })) {
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new SecateurError('INVALID_REQUEST', `${field} is ${value}; it must be an integer of at least 0.`);
    }
  }
}

function textSequenceLength({ sequenceLength }: TokenSource, { defaultSequenceLength = 0 }: TokenConsumer): number {
  const length = sequenceLength === 0 ? defaultSequenceLength : sequenceLength;
  if (length < 2)
    throw new SecateurError('INVALID_REQUEST', `A sample of ${length} tokens is too short; ask for a sequence length of at least 2.`);
  return length;
}

function tooManyTokens(samples: number, sequenceLength: number): SecateurError {
  return new SecateurError(
    'INVALID_REQUEST',
    `${samples} samples of ${sequenceLength} tokens are above the limit of ${MAXIMUM_TOKENS} tokens.`,
  );
}

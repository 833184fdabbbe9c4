import { DEFAULT_CALIBRATION_SAMPLES, SecateurError } from '@secateur/core';
import { BackgroundTokenizer } from '../tokenizer/background-tokenizer.js';
import { findDataFiles } from './data-files.js';
import { dataFormatOf } from './data-format.js';
import type { Documents } from './documents.js';
import { drawFromJoined } from './draw-from-joined.js';
import { drawWindows, suggestSequenceLength } from './draw-windows.js';
import { openDocuments } from './open-documents.js';
import { readTokenIds } from './token-id-file.js';
import { makeTokenSet, MAXIMUM_TOKENS, type TokenConsumer, type TokenSet, type TokenSource } from './token-set.js';

/** Stands between documents when text is measured. */
const DOCUMENT_SEPARATOR = '\n\n';
/** Text that is measured is tokenised as a whole; this keeps it below the longest string there can be. */
const MAXIMUM_EVALUATION_CHARACTERS = 1 << 28;

export interface LoadOptions {
  readonly signal?: AbortSignal | undefined;
}

/** Tokens to calibrate with: the given ids, or random windows of text. */
export async function loadCalibrationTokens(source: TokenSource, model: TokenConsumer, { signal }: LoadOptions = {}): Promise<TokenSet> {
  checkSource(source);
  const files = await findDataFiles(source.paths);
  if (isTokenIdFile(files)) return loadTokenIds(files, source, model);
  const samples = source.samples === 0 ? DEFAULT_CALIBRATION_SAMPLES : source.samples;
  const sequenceLength = textSequenceLength(source, model);
  if (samples * sequenceLength > MAXIMUM_TOKENS) throw tooManyTokens(samples, sequenceLength);
  return withText(files, source, model, signal, async (documents, tokenizer) => {
    const name = nameOf(files);
    const draw = {
      documents: () => {
        const read = async (index: number): Promise<Int32Array> => tokenizer.encode(await documents.read(index));
        return drawWindows({ name, count: documents.count, read }, samples, sequenceLength, source.seed);
      },
      concatenated: () =>
        drawFromJoined({ name, documents, encode: (text) => tokenizer.encode(text) }, samples, sequenceLength, source.seed),
    }[source.sampling];
    const windows = await draw();
    return makeTokenSet({ files, sequenceLength, ...windows }, model.vocabularySize);
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
  const files = await findDataFiles(source.paths);
  if (isTokenIdFile(files)) {
    if (requestedStride === 0) return loadTokenIds(files, source, model);
    throw new SecateurError('INVALID_REQUEST', `${nameOf(files)}: token ids are windows already; a stride is for text.`);
  }
  const sequenceLength = textSequenceLength(source, model);
  const stride = requestedStride === 0 ? sequenceLength : requestedStride;
  if (stride > sequenceLength) {
    throw new SecateurError('INVALID_REQUEST', `A stride of ${stride} would skip text between windows of ${sequenceLength} tokens.`);
  }
  return withText(files, source, model, signal, async (documents, tokenizer) => {
    const tokens = await tokenizer.encode(await readJoined(files, documents));
    const windows = Math.max(0, Math.floor((tokens.length - sequenceLength) / stride) + 1);
    const samples = source.samples === 0 ? windows : source.samples;
    if (windows === 0 || samples > windows) {
      throw tooLittleText(files, tokens.length, { windows, samples: Math.max(1, samples), sequenceLength, stride, requestedStride });
    }
    if (samples * sequenceLength > MAXIMUM_TOKENS) throw tooManyTokens(samples, sequenceLength);
    const ids = new Int32Array(samples * sequenceLength);
    for (let window = 0; window < samples; window++) {
      ids.set(tokens.subarray(window * stride, window * stride + sequenceLength), window * sequenceLength);
    }
    return makeTokenSet({ files, sequenceLength, ids, documents: documents.count }, model.vocabularySize);
  });
}

async function readJoined(files: readonly string[], documents: Documents): Promise<string> {
  const texts: string[] = [];
  let characters = 0;
  for (let index = 0; index < documents.count; index++) {
    const text = await documents.read(index);
    characters += text.length + DOCUMENT_SEPARATOR.length;
    if (characters > MAXIMUM_EVALUATION_CHARACTERS) {
      throw new SecateurError(
        'INVALID_DATA',
        `${nameOf(files)}: the text has more than the limit of ${MAXIMUM_EVALUATION_CHARACTERS} characters; measure with a part of it.`,
      );
    }
    texts.push(text);
  }
  return texts.join(DOCUMENT_SEPARATOR);
}

async function loadTokenIds(files: readonly string[], source: TokenSource, model: TokenConsumer): Promise<TokenSet> {
  const [path, ...others] = files;
  if (path === undefined || others.length > 0) {
    throw new SecateurError('INVALID_DATA', `${files.join(', ')}: token ids come in one .safetensors file; give it alone.`);
  }
  const { ids, sequenceLength } = await readTokenIds(path, source, model);
  return makeTokenSet({ files, sequenceLength, ids, documents: 0 }, model.vocabularySize);
}

async function withText<T>(
  files: readonly string[],
  { textField }: TokenSource,
  { directory, allowedRoots }: TokenConsumer,
  signal: AbortSignal | undefined,
  use: (documents: Documents, tokenizer: BackgroundTokenizer) => Promise<T>,
): Promise<T> {
  const documents = await openDocuments(files, { allowedRoots, textField, signal });
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

/** True when all files hold ids; those among text are refused where they are opened. */
function isTokenIdFile(files: readonly string[]): boolean {
  return files.every((path) => dataFormatOf(path).content === 'token ids');
}

function nameOf(files: readonly string[]): string {
  const [first = '', ...others] = files;
  return others.length === 0 ? first : `${first} and ${others.length} more`;
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

/** `windows`: how many there are. */
function tooLittleText(
  files: readonly string[],
  tokens: number,
  {
    windows,
    samples,
    sequenceLength,
    stride,
    requestedStride,
  }: Readonly<Record<'windows' | 'samples' | 'sequenceLength' | 'stride' | 'requestedStride', number>>,
): SecateurError {
  const needed = sequenceLength + (samples - 1) * stride;
  // A stride that was asked for stays as it is, and windows cannot be shorter than that.
  const shorter = requestedStride === 0 ? Math.floor(tokens / samples) : 0;
  const fewer = windows === 0 ? '' : `, or ask for at most ${windows} samples (--samples ${windows})`;
  return new SecateurError(
    'INVALID_DATA',
    `${nameOf(files)}: its text has ${tokens} tokens, ${samples} samples of ${sequenceLength} need ${needed}; ${needed - tokens} are missing. Give more text${fewer}${suggestSequenceLength(shorter)}.`,
  );
}

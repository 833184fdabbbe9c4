import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { SecateurError } from '@secateur/core';
import type { InputFolder } from '../files/folder.js';
import type { InputOptions } from '../files/input-file.js';
import { openFolder } from '../files/input-folder.js';
import { joinLocation } from '../files/locations.js';
import { readSmallFile } from '../files/open-input.js';
import { buildByteLevelTokenizer } from './byte-level-bpe.js';
import { splitWordsWhereSafe } from './word-splits.js';

const MAXIMUM_FILE_BYTES = 64 << 20;
/** Of any vocabulary; the library makes a list as long as the highest id. */
const MAXIMUM_ID = 2 ** 24 - 1;

/** What is used of the library; its own declarations do not resolve under NodeNext. */
interface LibraryTokenizer {
  get_vocab(): ReadonlyMap<string, number>;
  /** An id is undefined when the text holds what the vocabulary does not have and there is no unknown token. */
  encode(
    text: string,
    options: { add_special_tokens: boolean },
  ): { readonly ids: readonly (number | undefined)[]; readonly tokens: readonly string[] };
}

const createTokenizer = (definition: object, config: object): LibraryTokenizer =>
  new (HuggingFaceTokenizer as new (definition: object, config: object) => LibraryTokenizer)(definition, config);

export interface EncodeOptions {
  /** Whether the tokens that the model expects around a text are added. Defaults to true. */
  readonly addSpecialTokens?: boolean | undefined;
}

/** Turns text into the token ids of a model. */
export class Tokenizer {
  /** The highest id plus one. */
  readonly vocabularySize: number;

  constructor(
    private readonly source: string,
    private readonly tokenizer: LibraryTokenizer,
  ) {
    let vocabularySize = 0;
    for (const id of tokenizer.get_vocab().values()) vocabularySize = Math.max(vocabularySize, id + 1);
    this.vocabularySize = vocabularySize;
  }

  /** Computes without a pause, about a second per MB of text; BackgroundTokenizer is for long texts. */
  encode(text: string, { addSpecialTokens = true }: EncodeOptions = {}): Int32Array {
    const { ids, tokens } = this.encodeByLibrary(text, addSpecialTokens);
    return Int32Array.from(ids, (id, index) => {
      if (id === undefined) {
        throw new SecateurError(
          'INVALID_DATA',
          `${this.source}: the tokenizer has no id for ${JSON.stringify(tokens[index])} in the text.`,
        );
      }
      if (isTokenId(id)) return id;
      throw new SecateurError(
        'INVALID_CHECKPOINT',
        `${this.source}: the tokenizer gives ${JSON.stringify(tokens[index])} the id ${id}; ids are whole numbers from 0 on.`,
      );
    });
  }

  private encodeByLibrary(text: string, addSpecialTokens: boolean): ReturnType<LibraryTokenizer['encode']> {
    try {
      return this.tokenizer.encode(text, { add_special_tokens: addSpecialTokens });
    } catch (error) {
      throw unusable(this.source, error);
    }
  }
}

function isTokenId(id: unknown): boolean {
  return Number.isInteger(id) && (id as number) >= 0 && (id as number) <= MAXIMUM_ID;
}

/** Refuses ids that are none, of the vocabulary and of the tokens beside it. */
function checkVocabulary(source: string, { model, added_tokens: added }: Readonly<Record<string, unknown>>): void {
  const ids = Object.entries(toRecord(toRecord(model)?.['vocab']) ?? {});
  for (const entry of Array.isArray(added) ? (added as unknown[]) : []) {
    const token = toRecord(entry);
    ids.push([String(token?.['content']), token?.['id']]);
  }
  const wrong = ids.find(([, id]) => !isTokenId(id));
  if (wrong === undefined) return;
  const [token, id] = wrong;
  throw new SecateurError(
    'INVALID_CHECKPOINT',
    `${source}: the tokenizer gives ${JSON.stringify(token)} the id ${JSON.stringify(id)}; ids are whole numbers from 0 to ${MAXIMUM_ID}.`,
  );
}

/** What a tokenizer.json that nobody checked makes the library throw. */
function unusable(source: string, error: unknown): SecateurError {
  const reason = error instanceof Error ? error.message : String(error);
  return new SecateurError('INVALID_CHECKPOINT', `${source}: the tokenizer cannot be used: ${reason}`, { cause: error });
}

/** Reads tokenizer.json, or vocab.json and merges.txt, of a model folder. */
export async function loadTokenizer(modelDirectory: string, options: InputOptions = {}): Promise<Tokenizer> {
  const folder = await openFolder(modelDirectory, options);
  const read = (name: string): Promise<string | undefined> => readTextIfThere(folder, name, options);
  const config = toRecord(await readJson(modelDirectory, 'tokenizer_config.json', read)) ?? {};
  const definition =
    toRecord(await readJson(modelDirectory, 'tokenizer.json', read)) ?? (await readByteLevel(modelDirectory, config, read));
  if (definition === undefined) {
    throw new SecateurError(
      'INVALID_CHECKPOINT',
      `${modelDirectory} has neither tokenizer.json nor vocab.json and merges.txt; add them, or give token ids as a .safetensors file.`,
    );
  }
  checkVocabulary(modelDirectory, definition);
  try {
    return new Tokenizer(modelDirectory, createTokenizer(splitWordsWhereSafe(definition), config));
  } catch (error) {
    throw unusable(modelDirectory, error);
  }
}

type ReadText = (name: string) => Promise<string | undefined>;

async function readByteLevel(
  directory: string,
  config: Readonly<Record<string, unknown>>,
  read: ReadText,
): Promise<Readonly<Record<string, unknown>> | undefined> {
  const [vocabulary, merges] = [await readJson(directory, 'vocab.json', read), await read('merges.txt')];
  if (vocabulary === undefined || merges === undefined) return undefined;
  const modelType = toRecord(await readJson(directory, 'config.json', read))?.['model_type'];
  return { ...buildByteLevelTokenizer(vocabulary, merges, { config, modelType: typeof modelType === 'string' ? modelType : undefined }) };
}

async function readJson(directory: string, name: string, read: ReadText): Promise<unknown> {
  const text = await read(name);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new SecateurError('INVALID_CHECKPOINT', `${joinLocation(directory, name)}: it is not valid JSON: ${reason}`, { cause: error });
  }
}

async function readTextIfThere(folder: InputFolder, name: string, options: InputOptions): Promise<string | undefined> {
  if (!(await folder.has(name))) return undefined;
  const path = joinLocation(folder.path, name);
  const content = await readSmallFile(
    path,
    MAXIMUM_FILE_BYTES,
    options,
    (bytes) => new SecateurError('INVALID_CHECKPOINT', `${path}: it has ${bytes} bytes, more than the limit of ${MAXIMUM_FILE_BYTES}.`),
  );
  return content.toString('utf8');
}

function toRecord(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
}

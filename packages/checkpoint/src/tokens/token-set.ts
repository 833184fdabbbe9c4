import { createHash } from 'node:crypto';
import { loadHasher, SecateurError } from '@secateur/core';

/** Where calibration or evaluation tokens come from. */
export interface TokenSource {
  /**
   * Absolute paths and globs, read as one source in the order of the files' names: .txt (one document), .raw (the rows of WikiText), .jsonl (a
   * document per line), .parquet (a document per row), each also with .gz or .zst, or one .safetensors with an integer tensor `input_ids` [samples, tokens].
   */
  readonly paths: readonly string[];
  /** Number of samples. When 0: 256 to calibrate with text, all there are otherwise. */
  readonly samples: number;
  /** Tokens per sample. When 0: what the ids have, or the model's default for text. */
  readonly sequenceLength: number;
  /** Seed of the sampling of calibration text. */
  readonly seed: number;
  /** How samples are taken from calibration text: windows of single documents, or of all documents joined. */
  readonly sampling: 'documents' | 'concatenated';
  /** Field of .jsonl or column of .parquet that holds the text. */
  readonly textField: string;
}

/** The model the tokens are for. */
export interface TokenConsumer {
  /** Folder with the tokenizer; only read when the source is text. */
  readonly directory: string;
  /** Rows of the token embedding; higher ids are refused. */
  readonly vocabularySize: number;
  /** Tokens per sample of text when the source does not say. */
  readonly defaultSequenceLength?: number | undefined;
  /** Where files may really be once symbolic links are followed; anywhere when not given. */
  readonly allowedRoots?: readonly string[] | undefined;
}

/** Samples of equal length. */
export interface TokenSet {
  /** Row-major [samples, sequenceLength]. */
  readonly ids: Int32Array;
  readonly samples: number;
  readonly sequenceLength: number;
  /** Digest of the ids as little-endian int32. */
  readonly digest: string;
  /** SHA-256 of the same bytes, which other tools can make too. */
  readonly sha256: string;
  /** The files that were read, in order. */
  readonly files: readonly string[];
  /** Documents that the samples were taken from; 0 for ids. */
  readonly documents: number;
}

/** Tokens a set may hold at most (1 GiB). */
export const MAXIMUM_TOKENS = 1 << 28;

type UncheckedTokens = Pick<TokenSet, 'ids' | 'sequenceLength' | 'files' | 'documents'>;

/** Checks every id and makes the digests. */
export async function makeTokenSet(tokens: UncheckedTokens, vocabularySize: number): Promise<TokenSet> {
  const { ids, sequenceLength, files } = tokens;
  requireVocabulary(files.join(', '), ids, sequenceLength, vocabularySize);
  const bytes = new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength);
  return {
    ...tokens,
    samples: ids.length / sequenceLength,
    digest: (await loadHasher()).digest(bytes),
    sha256: createHash('sha256').update(bytes).digest('hex'),
  };
}

/** Refuses ids that the model does not have. `path` names the source in errors. */
export function requireVocabulary(path: string, ids: Int32Array, sequenceLength: number, vocabularySize: number): void {
  const position = ids.findIndex((id) => id < 0 || id >= vocabularySize);
  if (position !== -1) {
    const sample = Math.floor(position / sequenceLength);
    throw new SecateurError(
      'INVALID_DATA',
      `${path}: id ${ids[position]} at sample ${sample}, position ${position % sequenceLength} is outside the model's vocabulary of ${vocabularySize}; was it made with another model's tokenizer?`,
    );
  }
}

import { loadHasher, SecateurError } from '@secateur/core';

/** Where calibration or evaluation tokens come from. */
export interface TokenSource {
  /** .txt (one document), .raw (the rows of WikiText), .jsonl (a document per line in `text`), or .safetensors with an integer tensor `input_ids` [samples, tokens]. */
  readonly path: string;
  /** Number of samples. When 0: 256 to calibrate with text, all there are otherwise. */
  readonly samples: number;
  /** Tokens per sample. When 0: what the ids have, or the model's default for text. */
  readonly sequenceLength: number;
  /** Seed of the sampling of calibration text. */
  readonly seed: number;
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
}

/** Tokens a set may hold at most (1 GiB). */
export const MAXIMUM_TOKENS = 1 << 28;

/** Checks every id and makes the digest. `path` names the source in errors. */
export async function makeTokenSet(path: string, ids: Int32Array, sequenceLength: number, vocabularySize: number): Promise<TokenSet> {
  requireVocabulary(path, ids, sequenceLength, vocabularySize);
  const hasher = await loadHasher();
  const digest = hasher.digest(new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength));
  return { ids, samples: ids.length / sequenceLength, sequenceLength, digest };
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

import { basename } from 'node:path';
import { SecateurError } from '@secateur/core';

export interface DataFormat {
  readonly content: 'text' | 'wikitext' | 'json lines' | 'parquet' | 'token ids';
  readonly compression: 'gzip' | 'zstd' | undefined;
}

const CONTENTS: Readonly<Record<string, DataFormat['content']>> = {
  '.txt': 'text',
  '.raw': 'wikitext',
  '.jsonl': 'json lines',
  '.parquet': 'parquet',
  '.safetensors': 'token ids',
};

const COMPRESSIONS: Readonly<Record<string, 'gzip' | 'zstd'>> = { '.gz': 'gzip', '.zst': 'zstd' };

/** What a file holds, by its name: `data.jsonl.zst` is JSON lines, compressed by zstd. */
export function dataFormatOf(path: string): DataFormat {
  const [, extension = '', suffix = ''] = /(\.[^.]*?)(\.gz|\.zst)?$/.exec(basename(path).toLowerCase()) ?? [];
  const content = CONTENTS[extension];
  const compression = COMPRESSIONS[suffix];
  if (content === undefined || (content === 'token ids' && compression !== undefined)) {
    throw new SecateurError(
      'INVALID_DATA',
      `${path}: the data must be a .txt, .raw, .jsonl or .parquet file, also with .gz or .zst, or a .safetensors file.`,
    );
  }
  return { content, compression };
}

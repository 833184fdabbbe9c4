import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { Zstd } from '@hpcc-js/wasm-zstd';
import { parquetWriteBuffer } from 'hyparquet-writer';

const zstd = await Zstd.load();

export function zstdBytes(content: Uint8Array): Uint8Array {
  return zstd.compress(content);
}

/** Every way that documents can be stored, by the end of the file's name. */
export const DOCUMENT_FORMATS = ['.jsonl', '.parquet'].flatMap((format) => ['', '.gz', '.zst'].map((suffix) => `${format}${suffix}`));

export const PARQUET_CODECS = ['UNCOMPRESSED', 'SNAPPY', 'GZIP', 'BROTLI', 'ZSTD', 'LZ4_RAW'] as const;

export interface ParquetOptions {
  readonly codec?: (typeof PARQUET_CODECS)[number];
  readonly rowGroupSize?: number;
  readonly column?: string;
}

export function parquetBytes(
  texts: readonly (string | null)[],
  { codec = 'SNAPPY', rowGroupSize = 3, column = 'text' }: ParquetOptions = {},
): Uint8Array {
  const columnData = [
    { name: 'id', data: texts.map((_, index) => index), type: 'INT32' as const },
    { name: column, data: [...texts], type: 'STRING' as const },
  ];
  const compressors = { GZIP: gzipSync, BROTLI: brotliCompressSync, ZSTD: zstdBytes, LZ4_RAW: lz4Block };
  return new Uint8Array(parquetWriteBuffer({ columnData, codec, compressors, rowGroupSize }));
}

/** The content of a file of that name that holds the documents; of .txt, all in one. */
export function documentBytes(name: string, texts: readonly string[]): Uint8Array {
  if (name.endsWith('.gz')) return gzipSync(documentBytes(name.slice(0, -3), texts));
  if (name.endsWith('.zst')) return zstdBytes(documentBytes(name.slice(0, -4), texts));
  if (name.endsWith('.parquet')) return parquetBytes(texts);
  return Buffer.from(name.endsWith('.jsonl') ? texts.map((text) => `${JSON.stringify({ text })}\n`).join('') : texts.join(''));
}

export async function writeDocuments(folder: string, name: string, texts: readonly string[]): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, documentBytes(name, texts));
  return path;
}

/** A block without matches, which is one of LZ4 too. */
function lz4Block(content: Uint8Array): Uint8Array {
  if (content.byteLength < 15) return Buffer.concat([Buffer.from([content.byteLength << 4]), content]);
  const left = content.byteLength - 15;
  return Buffer.concat([Buffer.from([0xf0]), Buffer.alloc(Math.floor(left / 255), 255), Buffer.from([left % 255]), content]);
}

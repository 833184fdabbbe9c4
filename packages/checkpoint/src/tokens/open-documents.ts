import { SecateurError } from '@secateur/core';
import { openInput } from '../files/open-input.js';
import type { ReadableFile } from '../files/readable-file.js';
import { decodeText, MAXIMUM_TEXT_BYTES, requireTextSize } from '../files/text.js';
import { unpackFile } from '../files/unpack-file.js';
import { dataFormatOf, type DataFormat } from './data-format.js';
import { requireFewDocuments, type DocumentOptions, type Documents } from './documents.js';
import { openJsonLines } from './json-documents.js';
import { ParquetReader } from './parquet.js';
import { joinWikiTextRows } from './wikitext.js';

/** Bytes that all compressed files of a source may hold together; they are unpacked to the temporary folder. */
const MAXIMUM_UNPACKED_BYTES = 2 ** 36;

/** Opens text files as one row of documents, in the order of the files. */
export async function openDocuments(paths: readonly string[], options: DocumentOptions): Promise<Documents> {
  const opened: Documents[] = [];
  const parquet = new ParquetReader(options.signal);
  const close = async (): Promise<void> => {
    await parquet.close();
    for (const documents of opened) await documents.close();
  };
  const budget = { unpackedBytes: MAXIMUM_UNPACKED_BYTES };
  let count = 0;
  try {
    for (const path of paths) {
      const documents = await openFile(path, options, parquet, budget);
      opened.push(documents);
      count += documents.count;
      requireFewDocuments(path, count);
    }
  } catch (error) {
    await close();
    throw error;
  }
  const read = async (index: number): Promise<string> => {
    let left = index;
    for (const documents of opened) {
      if (left < documents.count) return documents.read(left);
      left -= documents.count;
    }
    throw new RangeError(`There is no document ${index}.`);
  };
  return { count, read, close };
}

async function openFile(
  path: string,
  options: DocumentOptions,
  parquet: ParquetReader,
  budget: { unpackedBytes: number },
): Promise<Documents> {
  const format = dataFormatOf(path);
  const file = await openUnpacked(path, format, options, budget);
  try {
    switch (format.content) {
      case 'text':
        return openText(file, (text) => text);
      case 'wikitext':
        return openText(file, joinWikiTextRows);
      case 'json lines':
        return await openJsonLines(file, options);
      case 'parquet':
        return await parquet.open(file, options);
      case 'token ids':
        throw new SecateurError('INVALID_DATA', `${path}: token ids and text cannot be mixed, and ids come in one file; give it alone.`);
    }
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function openUnpacked(
  path: string,
  { content, compression }: DataFormat,
  { allowedRoots, signal }: DocumentOptions,
  budget: { unpackedBytes: number },
): Promise<ReadableFile> {
  const file = await openInput(path, { allowedRoots });
  if (compression === undefined) return file;
  const limit =
    content === 'text' || content === 'wikitext'
      ? { maximumBytes: MAXIMUM_TEXT_BYTES, remedy: 'split it into documents, one per line of a .jsonl file' }
      : { maximumBytes: budget.unpackedBytes, remedy: 'give fewer files, or the data uncompressed, which is read where it lies' };
  try {
    const unpacked = await unpackFile(file, { compression, signal, ...limit });
    budget.unpackedBytes -= unpacked.bytes;
    return unpacked;
  } finally {
    await file.close();
  }
}

/** A document of a whole file, made from its text by `prepare`. */
function openText(file: ReadableFile, prepare: (text: string) => string): Documents {
  const read = async (): Promise<string> => {
    requireTextSize(file.path, file.bytes);
    const content = Buffer.allocUnsafeSlow(file.bytes);
    await file.readInto(content, 0);
    return prepare(decodeText(content, file.path));
  };
  return { count: 1, read, close: () => file.close() };
}

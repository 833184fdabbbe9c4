import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { parquetMetadata } from 'hyparquet';
import { deserializeTCompactProtocol } from 'hyparquet/src/thrift.js';
import { parquetBytes } from '../../test/data-files.js';
import { expectFailure, withTemporaryFolder } from '../../test/support.js';
import { InputFile } from '../files/input-file.js';
import { ParquetReader } from './parquet.js';

const options = { textField: 'text' };

/** Reads the first row with little memory. */
async function readFirst(content: Uint8Array): Promise<string> {
  return withTemporaryFolder(async (folder) => {
    const path = join(folder, 'hostile.parquet');
    await writeFile(path, content);
    const reader = new ParquetReader(undefined, 256);
    const file = await InputFile.open(path);
    try {
      const documents = await reader.open(file, options);
      return await documents.read(0);
    } finally {
      await file.close();
      await reader.close();
    }
  });
}

/** A file with 4000 rows, about half of which have a text. */
function wholeFile(): { readonly bytes: Buffer; readonly pagesAt: number; readonly levelsAt: number } {
  const texts = Array.from({ length: 4_000 }, (_, index) => ((index * 7) % 5 < 2 ? `text ${index}` : null));
  const bytes = Buffer.from(parquetBytes(['first', ...texts], { codec: 'UNCOMPRESSED', rowGroupSize: 10_000 }));
  const offset = Number(parquetMetadata(bytes).row_groups[0]!.columns[1]!.meta_data!.data_page_offset);
  const reader = { view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), offset };
  deserializeTCompactProtocol(reader);
  return { bytes, pagesAt: offset, levelsAt: reader.offset };
}

describe('a hostile Parquet file', () => {
  test('is read as long as it is whole', async () => {
    expect(await readFirst(wholeFile().bytes)).toBe('first');
  });

  test('that says a value two thousand million times in five bytes ends its reading, and nothing else', async () => {
    const { bytes, levelsAt } = wholeFile();
    for (const at of [levelsAt, levelsAt + 4]) Buffer.from([0xfe, 0xff, 0xff, 0xff, 0x0f, 1]).copy(bytes, at);
    await expectFailure(() => readFirst(bytes), 'RESOURCE_EXHAUSTED', /hostile\.parquet: .* more memory/);
  });

  test('whose pages lie nowhere is refused by name', async () => {
    const { bytes, pagesAt } = wholeFile();
    // data_page_offset, an integer two fields after the one before, becomes the next field, which nobody reads; what follows stays.
    const field = Buffer.concat([Buffer.from([0x26]), varint(2n * BigInt(pagesAt))]);
    const at = bytes.lastIndexOf(field);
    expect(at).toBeGreaterThan(pagesAt);
    bytes[at] = 0x36;
    bytes[at + field.byteLength]! -= 0x10;
    await expectFailure(() => readFirst(bytes), 'INVALID_DATA', /hostile\.parquet, row group 0: it is no Parquet file that can be read/);
  });

  test.each([
    ['more rows than there can be', 0xffff_fffen],
    ['fewer rows than none', 1n],
  ])('that tells of %s is refused by name', async (_, zigzag) => {
    const { bytes } = wholeFile();
    const footer = bytes.subarray(bytes.byteLength - 8 - bytes.readUInt32LE(bytes.byteLength - 8), -8);
    // num_rows: 4001 as a zigzag varint of two bytes, the last time it is written is the row group's.
    const rows = Buffer.from([0xc2, 0x3e]);
    const at = footer.lastIndexOf(rows);
    expect(at).toBeGreaterThan(0);
    const grown = Buffer.concat([footer.subarray(0, at), varint(zigzag), footer.subarray(at + rows.byteLength)]);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(grown.byteLength);
    const hostile = Buffer.concat([bytes.subarray(0, bytes.byteLength - 8 - footer.byteLength), grown, length, Buffer.from('PAR1')]);
    await expectFailure(() => readFirst(hostile), 'INVALID_DATA', /hostile\.parquet: row group 0 has -?\d+ rows/);
  });
});

function varint(value: bigint): Buffer {
  const bytes: number[] = [];
  for (let left = value; ; left >>= 7n) {
    if (left < 0x80n) return Buffer.from([...bytes, Number(left)]);
    bytes.push(Number(left & 0x7fn) | 0x80);
  }
}

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { zstdBytes } from '../../test/data-files.js';
import { expectFailure, withTemporaryFolder } from '../../test/support.js';
import { InputFile } from './input-file.js';
import { unpackZstd } from './unpack-zstd.js';

const SENTENCE = 'The whale rose again, and the boats pulled away into the fog.';
/** The sentence as `zstd --check` writes it. */
const CHECKED = Buffer.from(
  'KLUv/SQ96QEAVGhlIHdoYWxlIHJvc2UgYWdhaW4sIGFuZCB0aGUgYm9hdHMgcHVsbGVkIGF3YXkgaW50byB0aGUgZm9nLvEu+WM=',
  'base64',
);
const SKIPPED = Buffer.from([0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);

async function unpack(...parts: readonly Uint8Array[]): Promise<Buffer> {
  return withTemporaryFolder(async (folder) => {
    const path = join(folder, 'a.zst');
    await writeFile(path, Buffer.concat(parts));
    const file = await InputFile.open(path);
    try {
      const blocks: Uint8Array[] = [];
      for await (const block of unpackZstd(file)) blocks.push(Buffer.from(block));
      return Buffer.concat(blocks);
    } finally {
      await file.close();
    }
  });
}

/** A frame of runs of one byte: four bytes of each block become 128 KiB. */
function frameOfRuns(descriptor: readonly number[], blocks: number): Buffer {
  const block = (last: boolean): Buffer => {
    const bytes = Buffer.alloc(4, 0x61);
    bytes.writeUIntLE(((1 << 17) << 3) | 2 | (last ? 1 : 0), 0, 3);
    return bytes;
  };
  return Buffer.concat([
    Buffer.from([0x28, 0xb5, 0x2f, 0xfd, ...descriptor]),
    ...Array.from({ length: blocks }, (_, index) => block(index === blocks - 1)),
  ]);
}

test('frames follow each other, with skippable ones between', async () => {
  expect((await unpack(CHECKED, SKIPPED, zstdBytes(Buffer.from('!')), CHECKED, SKIPPED)).toString()).toBe(`${SENTENCE}!${SENTENCE}`);
});

test('what libzstd packed is what comes out', () =>
  fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.uint8Array({ maxLength: 3000 }), fc.integer({ min: 1, max: 400 })), { maxLength: 4 }),
      async (runs) => {
        const content = Buffer.concat(runs.map(([bytes, times]) => Buffer.concat(Array.from({ length: times }, () => bytes))));
        expect((await unpack(zstdBytes(content))).equals(content)).toBe(true);
      },
    ),
    { numRuns: 40, seed: 20250516 },
  ));

test('a flipped bit is found by the checksum', async () => {
  const odd = Buffer.from(CHECKED);
  odd[20]! ^= 1;
  await expectFailure(() => unpack(odd), 'INVALID_DATA', /a.zst: .*does not match its checksum/);
});

test('a window or a dictionary that cannot be held is refused', async () => {
  // Window descriptors: 1 KiB · 2^17 is the limit, one eighth more is too much.
  expect((await unpack(frameOfRuns([0, 17 << 3], 3))).byteLength).toBe(3 << 17);
  await expectFailure(
    () => unpack(frameOfRuns([0, (17 << 3) | 1], 3)),
    'INVALID_DATA',
    /window of 150994944 bytes is above the limit of 134217728/,
  );
  await expectFailure(() => unpack(frameOfRuns([1, 0, 7], 3)), 'INVALID_DATA', /needs a dictionary/);
});

test('many small blocks of a large window are refused before they take hours', async () => {
  const block = (last: boolean): Buffer => Buffer.from([last ? 1 : 0, 0, 0]);
  const header = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3]);
  const blocks = Buffer.concat(Array.from({ length: 100_000 }, (_, index) => block(index === 99_999)));
  await expectFailure(() => unpack(header, blocks), 'INVALID_DATA', /too small for its window/);
});

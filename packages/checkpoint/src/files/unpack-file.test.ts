import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from '@jest/globals';
import { zstdBytes } from '../../test/data-files.js';
import { expectFailure, withTemporaryFolder } from '../../test/support.js';
import { InputFile } from './input-file.js';
import { unpackFile } from './unpack-file.js';

const PACKED = { gzip: gzipSync, zstd: zstdBytes };

describe.each(['gzip', 'zstd'] as const)('a file packed by %s', (compression) => {
  const unpack = (content: Uint8Array, maximumBytes: number, signal?: AbortSignal): Promise<Buffer> =>
    withTemporaryFolder(async (folder) => {
      await writeFile(join(folder, 'packed'), PACKED[compression](content));
      const packed = await InputFile.open(join(folder, 'packed'));
      const earlier = process.env['TMPDIR'];
      process.env['TMPDIR'] = folder;
      try {
        const unpacked = await unpackFile(packed, { compression, maximumBytes, remedy: 'give less', signal });
        expect(await readdir(folder)).toEqual(['packed']);
        const target = Buffer.alloc(unpacked.bytes);
        await unpacked.readInto(target, 0);
        await unpacked.close();
        return target;
      } finally {
        if (earlier === undefined) delete process.env['TMPDIR'];
        else process.env['TMPDIR'] = earlier;
        await packed.close();
      }
    });

  test('is read at any position and leaves nothing behind', async () => {
    const content = Buffer.from(Array.from({ length: 300_000 }, (_, index) => (index * index) % 251));
    expect((await unpack(content, content.byteLength)).equals(content)).toBe(true);
  });

  test('that holds more than it may is refused by name and limit', () =>
    expectFailure(
      () => unpack(Buffer.alloc(4 << 20), 1 << 20),
      'INVALID_DATA',
      /packed: unpacked it has more than the limit of 1048576 bytes; give less/,
    ));

  test('can be cancelled', () => expectFailure(() => unpack(Buffer.alloc(100), 100, AbortSignal.abort()), 'CANCELLED', /./));
});

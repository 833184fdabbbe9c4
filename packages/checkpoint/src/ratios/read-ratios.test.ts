import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { readRatios } from './read-ratios.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'secateur-ratios-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function read(content: string | Uint8Array): Promise<unknown> {
  const path = join(folder, 'ratios');
  await writeFile(path, content);
  return readRatios(path, {});
}

/** As NumPy writes it: the header ends with a line break at a multiple of 64. */
function npy(header: string, data: Uint8Array, version = 1): Uint8Array {
  const lengthBytes = version === 1 ? 2 : 4;
  const start = 8 + lengthBytes;
  const padded = `${header}${' '.repeat(64 - ((start + header.length + 1) % 64))}\n`;
  const length = Buffer.alloc(lengthBytes);
  length.writeUIntLE(padded.length, 0, lengthBytes);
  return Buffer.concat([Buffer.from('\x93NUMPY', 'latin1'), Uint8Array.of(version, 0), length, Buffer.from(padded, 'latin1'), data]);
}
const header = (type: string, shape: string): string => `{'descr': '${type}', 'fortran_order': False, 'shape': (${shape}), }`;
const bytesOf = (values: Float32Array | Float64Array): Uint8Array => new Uint8Array(values.buffer);

describe('ratios are read', () => {
  test('from JSON', async () => {
    expect(await read('{"model.layers.0": 0.7, "1": 6.5e-1}\n')).toEqual(
      new Map([
        ['model.layers.0', 0.7],
        ['1', 0.65],
      ]),
    );
  });

  test.each([1, 2, 3])('from version %d of the files of NumPy', async (version) => {
    expect(await read(npy(header('<f8', '3,'), bytesOf(Float64Array.of(0.5, 0.6, 0.7)), version))).toEqual(Float64Array.of(0.5, 0.6, 0.7));
    expect(await read(npy(header('<f4', '2,'), bytesOf(Float32Array.of(0.5, 0.6)), version))).toEqual(
      Float64Array.from(Float32Array.of(0.5, 0.6)),
    );
  });
});

describe('ratios are refused', () => {
  test.each([
    ['that are no numbers', '{"0": "0.7"}', /the ratio of 0 is not a number/],
    ['that are not there', '{"0": }', /the ratio of 0 is not a number/],
    ['that are named twice', '{"0": 0.7, "0": 0.6}', /names "0" twice/],
    ['that are in no object', '[0.7]', /not valid JSON/],
    ['with something behind', '{"0": 0.7} {}', /expected the end of the text/],
    ['in no text', '', /not valid JSON/],
    [
      'with two axes',
      npy(header('<f8', '1, 2'), bytesOf(Float64Array.of(1, 2))),
      /its shape \(1, 2\); it must be '<f4' or '<f8' with one axis/,
    ],
    ['of another type', npy(header('>f8', '1,'), bytesOf(Float64Array.of(1))), /its type is '>f8'/],
    ['that were cut', npy(header('<f8', '2,'), bytesOf(Float64Array.of(1))), /it has 8 bytes for 2 values/],
    ['cut in the header', npy(header('<f8', '2,'), new Uint8Array(0)).subarray(0, 20), /ends inside its header/],
    ['cut before the header', npy(header('<f8', '2,'), new Uint8Array(0)).subarray(0, 9), /no \.npy file of version 1 to 3/],
    ['of a version that is not known', npy(header('<f8', '0,'), new Uint8Array(0), 9), /no \.npy file of version 1 to 3/],
  ])('%s', async (_, content, message) => {
    await expect(read(content)).rejects.toThrow(message);
    await expect(read(content)).rejects.toThrow(join(folder, 'ratios'));
  });

  test('that are outside of what may be read', async () => {
    await writeFile(join(folder, 'ratios'), '{}');
    await expect(readRatios(join(folder, 'ratios'), { allowedRoots: [join(folder, 'inside')] })).rejects.toThrow(
      'outside the allowed roots',
    );
  });
});

import { mkdtemp, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { readFloatTensors } from './read-float-tensors.js';
import { SafetensorsFileWriter } from './safetensors-file-writer.js';

let folder: string;
let path: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'secateur-vectors-'));
  path = await write('vectors.safetensors');
});
afterAll(() => rm(folder, { recursive: true }));

async function write(name: string): Promise<string> {
  const path = join(folder, name);
  const writer = await SafetensorsFileWriter.create(path, [
    { name: 'a', dtype: 'F32', shape: [3] },
    { name: 'b', dtype: 'F32', shape: [1, 2] },
    { name: 'c', dtype: 'U8', shape: [2] },
  ]);
  await writer.write('a', new Uint8Array(Float32Array.of(0.5, -1, 2).buffer));
  await writer.write('b', new Uint8Array(8));
  await writer.write('c', new Uint8Array(2));
  await writer.finish();
  return path;
}

test('reads vectors by name', async () => {
  expect([...(await readFloatTensors(path, [{ name: 'a', length: 3 }], {}))]).toEqual([['a', Float32Array.of(0.5, -1, 2)]]);
});

test.each([
  ['missing', { name: 'd', length: 3 }, /has no tensor d/],
  ['too long', { name: 'a', length: 2 }, /a is F32 of shape \[3\]; it must be F32 of shape \[2\]/],
  ['a matrix', { name: 'b', length: 2 }, /b is F32 of shape \[1, 2\]/],
  ['of another type', { name: 'c', length: 2 }, /c is U8/],
])('names a vector that is %s', async (_, vector, message) => {
  await expect(readFloatTensors(path, [vector], {})).rejects.toThrow(message);
});

test('refuses a file that was cut and one outside of what may be read', async () => {
  const cut = await write('cut.safetensors');
  await expect(readFloatTensors(path, [{ name: 'a', length: 3 }], { allowedRoots: ['/nowhere'] })).rejects.toThrow();
  await truncate(cut, 40);
  await expect(readFloatTensors(cut, [{ name: 'a', length: 3 }], {})).rejects.toThrow(cut);
});

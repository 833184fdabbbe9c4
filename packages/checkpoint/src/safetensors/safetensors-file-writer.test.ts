import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { expectFailure, withTemporaryFolder } from '../../test/support.js';
import { SafetensorsFileWriter } from './safetensors-file-writer.js';

const entries = [
  { name: 'b.weight', dtype: 'U8', shape: [2, 3] },
  { name: 'a.weight', dtype: 'F32', shape: [2] },
];
const b = Buffer.from([1, 2, 3, 4, 5, 6]);
const a = Buffer.from(Float32Array.of(0.5, -2).buffer);

describe('SafetensorsFileWriter', () => {
  test('writes the same bytes whatever the order of the tensors', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'masks.safetensors');
      const writer = await SafetensorsFileWriter.create(path, entries, { format: 'pt' });
      await writer.write('a.weight', a);
      await writer.write('b.weight', b);
      await writer.finish();
      await writer.close();
      const json =
        '{"__metadata__":{"format":"pt"},"b.weight":{"dtype":"U8","shape":[2,3],"data_offsets":[0,6]},"a.weight":{"dtype":"F32","shape":[2],"data_offsets":[6,14]}}';
      const padded = json.padEnd(Math.ceil(json.length / 8) * 8);
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(padded.length));
      expect(await readFile(path)).toEqual(Buffer.concat([length, Buffer.from(padded), b, a]));
    }));

  test('goes on where it stopped', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'masks.safetensors');
      const first = await SafetensorsFileWriter.create(path, entries);
      await first.write('b.weight', b);
      await first.sync();
      await first.close();
      const second = await SafetensorsFileWriter.resume(path, entries, ['b.weight']);
      await expectFailure(() => second.finish(), 'FAILED_PRECONDITION', /not complete: "a.weight" are not written/);
      await second.write('a.weight', a);
      await second.finish();
      await second.close();
      expect((await readFile(path)).subarray(-14)).toEqual(Buffer.concat([b, a]));
    }));

  test('refuses to go on with another file', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'masks.safetensors');
      await expectFailure(() => SafetensorsFileWriter.resume(path, entries, []), 'NOT_FOUND', /masks.safetensors/);
      await (await SafetensorsFileWriter.create(path, entries)).close();
      await expectFailure(() => SafetensorsFileWriter.resume(path, entries, ['c.weight']), 'NOT_FOUND', /no tensor "c.weight"/);
      const renamed = entries.map((entry) => ({ ...entry, name: entry.name.replace('a.', 'c.') }));
      await expectFailure(() => SafetensorsFileWriter.resume(path, renamed, []), 'FAILED_PRECONDITION', /header belongs to another model/);
      await expectFailure(() => SafetensorsFileWriter.create(path, entries), 'ALREADY_EXISTS', /masks.safetensors/);
      await writeFile(path, 'short');
      await expectFailure(() => SafetensorsFileWriter.resume(path, entries, []), 'FAILED_PRECONDITION', /5 bytes/);
    }));

  test('takes every tensor exactly once and of its own size', () =>
    withTemporaryFolder(async (folder) => {
      const writer = await SafetensorsFileWriter.create(join(folder, 'a'), entries);
      await expectFailure(() => writer.write('c.weight', b), 'NOT_FOUND', /"c.weight"/);
      await expectFailure(() => writer.write('b.weight', a), 'INTERNAL', /has 6 bytes, 8 were given/);
      await writer.write('b.weight', b);
      await expectFailure(() => writer.write('b.weight', b), 'INTERNAL', /written twice/);
      await writer.close();
    }));

  test('says before any work that the disk is too small', () =>
    withTemporaryFolder((folder) =>
      expectFailure(
        () => SafetensorsFileWriter.create(join(folder, 'a'), [{ name: 'a', dtype: 'U8', shape: [2 ** 49] }]),
        'RESOURCE_EXHAUSTED',
        /needs 562949953421\d+ bytes, .* has \d+ left/,
      ),
    ));

  test('leaves a tensor unwritten when writing it failed', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'a');
      const writer = await SafetensorsFileWriter.create(path, entries);
      await writer.write('a.weight', a);
      await writer.close();
      await expect(writer.write('b.weight', b)).rejects.toThrow(/a/);
      const next = await SafetensorsFileWriter.resume(path, entries, ['a.weight']);
      await next.write('b.weight', b);
      await next.finish();
      await next.close();
    }));

  test('any tensors in any order, stopped anywhere, give the same file', () =>
    withTemporaryFolder(async (folder) => {
      let run = 0;
      const tensors = fc.array(fc.uint8Array({ maxLength: 40 }), { minLength: 1, maxLength: 8 });
      await fc.assert(
        fc.asyncProperty(tensors, fc.infiniteStream(fc.nat()), fc.nat(8), async (contents, keys, stop) => {
          run += 1;
          const planned = contents.map((content, index) => ({ name: `t${index}`, dtype: 'U8', shape: [content.length] }));
          const order = planned.map((_, index) => ({ index, key: keys.next().value })).sort((left, right) => left.key - right.key);
          const path = join(folder, String(run));
          const first = await SafetensorsFileWriter.create(path, planned);
          const before = order.slice(0, stop);
          for (const { index } of before) await first.write(`t${index}`, contents[index]!);
          await first.close();
          const second = await SafetensorsFileWriter.resume(
            path,
            planned,
            before.map(({ index }) => `t${index}`),
          );
          for (const { index } of order.slice(stop)) await second.write(`t${index}`, contents[index]!);
          await second.finish();
          await second.close();
          const data = Buffer.concat(contents);
          const written = await readFile(path);
          expect(written.subarray(written.byteLength - data.byteLength)).toEqual(data);
        }),
        { numRuns: 40, seed: 20250516 },
      );
    }));
});

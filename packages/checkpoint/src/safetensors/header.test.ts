import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { SecateurError } from '@secateur/core';
import { expectFailure, safetensorsBytes, withTemporaryFolder } from '../../test/support.js';
import { InputFile } from '../files/input-file.js';
import { dtypeBits } from './dtype.js';
import { planSafetensorsLayout, readSafetensorsLayout, type SafetensorsLayout } from './header.js';

async function readLayout(folder: string, content: Uint8Array): Promise<SafetensorsLayout> {
  const path = join(folder, 'model.safetensors');
  await writeFile(path, content);
  const file = await InputFile.open(path);
  try {
    return await readSafetensorsLayout(file);
  } finally {
    await file.close();
  }
}

const tensor = (start: number, end: number, extra: object = {}) => ({
  dtype: 'U8',
  shape: [end - start],
  data_offsets: [start, end],
  ...extra,
});
const field = (text: string): string => `{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4], ${text}}}`;
const withLength = (length: bigint, rest: Uint8Array = Buffer.from('{}')): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(length);
  return Buffer.concat([bytes, rest]);
};
const four = Buffer.alloc(4);

describe('a broken header', () => {
  const cases: [string, Uint8Array, RegExp][] = [
    ['an empty file', Buffer.alloc(0), /0 bytes, too few/],
    ['seven bytes', Buffer.alloc(7), /7 bytes, too few/],
    ['a header beyond the file', withLength(3n), /header of 3 bytes does not fit the file of 10 bytes/],
    ['a header above the limit', withLength((100n << 20n) + 1n), /above the limit of 104857600/],
    ['a header of 2^64 - 1 bytes', withLength((1n << 64n) - 1n), /above the limit/],
    ['no header at all', withLength(0n, Buffer.alloc(0)), /not valid JSON: expected the header/],
    ['invalid UTF-8', withLength(2n, Buffer.from([0xff, 0xfe])), /not valid UTF-8/],
    ['no JSON', safetensorsBytes('hello'), /not valid JSON/],
    ['a cut JSON', safetensorsBytes('{"a": {"dtype": "U8", '), /not valid JSON/],
    ['a string without an end', safetensorsBytes('{"a'), /ends inside a name/],
    ['a control character in a name', safetensorsBytes('{"a\u0001": 1}'), /not a valid JSON string/],
    ['text after the JSON', safetensorsBytes('{}x'), /expected the end of the text/],
    ['a comment', safetensorsBytes('{/* */}'), /not valid JSON/],
    ['a trailing comma', safetensorsBytes('{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},}', four), /not valid JSON/],
    ['an array', safetensorsBytes('[]'), /expected the header/],
    [
      'a deeply nested value',
      safetensorsBytes(`{"a": ${'['.repeat(100_000)}`),
      /tensor "a": it is not valid JSON: expected its description/,
    ],
    [
      'a name twice',
      safetensorsBytes('{"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}, "\\u0061": {}}'),
      /the header names "a" twice/,
    ],
    ['a field twice', safetensorsBytes(field('"dtype": "U8"'), four), /tensor "a": its description names "dtype" twice/],
    ['metadata twice', safetensorsBytes('{"__metadata__": {}, "__metadata__": {}}'), /names "__metadata__" twice/],
    ['metadata that is no text', safetensorsBytes('{"__metadata__": {"format": 1}}'), /expected a metadata value/],
    ['an unknown field', safetensorsBytes(field('"device": "cpu"'), four), /tensor "a": the field "device" is unknown/],
    [
      'a prototype as name',
      safetensorsBytes('{"__proto__": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}', four),
      /cannot be named "__proto__"/,
    ],
    ['a prototype as field', safetensorsBytes(field('"__proto__": []'), four), /the field "__proto__" is unknown/],
    ['a missing field', safetensorsBytes('{"a": {"dtype": "U8", "shape": []}}'), /tensor "a": dtype, shape or data_offsets is missing/],
    ['an unknown dtype', safetensorsBytes({ a: tensor(0, 4, { dtype: 'Q4_0' }) }, four), /tensor "a": the dtype "Q4_0" is unknown/],
    [
      'a dtype that every object has',
      safetensorsBytes({ a: tensor(0, 4, { dtype: 'constructor' }) }, four),
      /dtype "constructor" is unknown/,
    ],
    ['a negative size', safetensorsBytes({ a: tensor(0, 4, { shape: [-4] }) }, four), /tensor "a": an entry of shape is not an integer/],
    ['a fraction', safetensorsBytes({ a: tensor(0, 4, { shape: [4.5] }) }, four), /is not an integer/],
    ['an exponent', safetensorsBytes('{"a": {"dtype": "U8", "shape": [4e0], "data_offsets": [0, 4]}}', four), /is not an integer/],
    [
      'a huge number',
      safetensorsBytes('{"a": {"dtype": "U8", "shape": [9007199254740993], "data_offsets": [0, 4]}}', four),
      /is not an integer/,
    ],
    ['a number as text', safetensorsBytes({ a: tensor(0, 4, { shape: ['4'] }) }, four), /is not an integer/],
    [
      'a product above 2^50',
      safetensorsBytes({ a: tensor(0, 4, { shape: [2 ** 30, 2 ** 30] }) }, four),
      /is not a whole number of bytes below 2\^50/,
    ],
    ['nine dimensions', safetensorsBytes({ a: tensor(0, 4, { shape: [4, 1, 1, 1, 1, 1, 1, 1, 1] }) }, four), /more than 8 entries/],
    ['three offsets', safetensorsBytes({ a: tensor(0, 4, { data_offsets: [0, 4, 8] }) }, four), /more than 2 entries/],
    ['one offset', safetensorsBytes({ a: tensor(0, 4, { data_offsets: [0] }) }, four), /data_offsets must be two integers/],
    ['offsets the wrong way round', safetensorsBytes({ a: tensor(0, 4, { data_offsets: [4, 0] }) }, four), /end before they begin/],
    [
      'a shape that does not fit',
      safetensorsBytes({ a: tensor(0, 4, { shape: [5] }) }, four),
      /hold 4 bytes, the shape \[5\] of U8 needs 5/,
    ],
    ['half a byte', safetensorsBytes({ a: tensor(0, 4, { dtype: 'F4', shape: [7] }) }, four), /is not a whole number of bytes/],
    ['a truncated file', safetensorsBytes({ a: tensor(0, 8) }, four), /tensor "a" ends at byte \d+, the file has \d+; it is truncated/],
    ['an overlap', safetensorsBytes({ a: tensor(0, 3), b: tensor(2, 4) }, four), /tensor "b" overlaps tensor "a" by 1 bytes/],
    ['the same bytes twice', safetensorsBytes({ a: tensor(0, 4), b: tensor(0, 4) }, four), /overlaps/],
    ['a hole at the start', safetensorsBytes({ a: tensor(1, 4) }, four), /1 bytes between the header and tensor "a"/],
    ['a hole in the middle', safetensorsBytes({ a: tensor(0, 1), b: tensor(3, 4) }, four), /2 bytes between tensor "a" and tensor "b"/],
    ['bytes at the end', safetensorsBytes({ a: tensor(0, 3) }, four), /1 bytes at its end belong to no tensor/],
  ];
  test.each(cases)('%s is refused by name', (_, content, message) =>
    withTemporaryFolder(async (folder) => {
      await expectFailure(
        () => readLayout(folder, content),
        'INVALID_CHECKPOINT',
        new RegExp(`^${folder}/model.safetensors: .*${message.source}`),
      );
    }),
  );

  test('never makes an error message long', () =>
    withTemporaryFolder(async (folder) => {
      const name = 'x'.repeat(100_000);
      const content = safetensorsBytes({ [name]: tensor(0, 4, { dtype: 'Y' }) }, four);
      const error = await readLayout(folder, content).catch((caught: unknown) => caught);
      expect((error as SecateurError).message.length).toBeLessThan(1000);
    }));

  test(
    'more tensors than any model has are refused',
    () =>
      withTemporaryFolder(async (folder) => {
        const entries = Array.from({ length: 250_001 }, (_, index) => `"${index}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`);
        await expectFailure(
          () => readLayout(folder, safetensorsBytes(`{${entries.join()}}`)),
          'INVALID_CHECKPOINT',
          /more than 250000 tensors/,
        );
      }),
    20_000,
  );
});

describe('a valid header', () => {
  test('gives tensors in its own order, with the bytes of the header kept', () =>
    withTemporaryFolder(async (folder) => {
      const text =
        '{ "b":{"dtype":"BF16","shape":[],"data_offsets":[4,6]},\n"__metadata__":{"a":"\\u00e4"},"a\\"\\\\":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]} }   ';
      const content = safetensorsBytes(text, Buffer.alloc(6));
      const layout = await readLayout(folder, content);
      expect(layout.header).toEqual(content.subarray(0, content.byteLength - 6));
      const start = layout.header.byteLength;
      expect([...layout.tensors.values()]).toEqual([
        { name: 'b', dtype: 'BF16', dataType: 3, shape: [], fileOffset: start + 4, bytes: 2 },
        { name: 'a"\\', dtype: 'F32', dataType: 1, shape: [1, 1], fileOffset: start, bytes: 4 },
      ]);
    }));

  test('may hold no tensor', () =>
    withTemporaryFolder(async (folder) => {
      expect((await readLayout(folder, safetensorsBytes('{}'))).tensors.size).toBe(0);
    }));

  const entries = fc.uniqueArray(
    fc.record({
      name: fc.string({ unit: 'grapheme', maxLength: 20 }).filter((name) => name !== '__proto__' && name !== '__metadata__'),
      dtype: fc.constantFrom('BOOL', 'U8', 'F16', 'BF16', 'F32', 'I64', 'F8_E4M3'),
      shape: fc.array(fc.nat(5), { maxLength: 4 }),
    }),
    { selector: ({ name }) => name, maxLength: 12 },
  );
  const metadata = fc.option(fc.dictionary(fc.string(), fc.string(), { maxKeys: 3, noNullPrototype: true }), { nil: undefined });

  test('that is planned is read back as the same layout, whatever names and shapes', () =>
    withTemporaryFolder((folder) =>
      fc.assert(
        fc.asyncProperty(entries, metadata, async (tensors, extra) => {
          const planned = planSafetensorsLayout(tensors, extra);
          expect(planned.header.byteLength % 8).toBe(0);
          const data = Buffer.alloc(planned.fileBytes - planned.header.byteLength);
          const layout = await readLayout(folder, Buffer.concat([planned.header, data]));
          expect([...layout.tensors]).toEqual([...planned.tensors]);
          for (const { dtype, shape, bytes } of layout.tensors.values()) {
            expect(bytes * 8).toBe(shape.reduce((product, size) => product * size, dtypeBits(dtype)!));
          }
        }),
        { numRuns: 100, seed: 20250516 },
      ),
    ));

  test(
    'with bytes changed at random is read or refused, never anything else',
    () =>
      withTemporaryFolder(async (folder) => {
        const planned = planSafetensorsLayout(
          [
            { name: 'model.embed_tokens.weight', dtype: 'BF16', shape: [16, 8] },
            { name: 'model.layers.0.self_attn.q_proj.weight', dtype: 'F32', shape: [8, 8] },
            { name: 'model.norm.weight', dtype: 'F16', shape: [8] },
          ],
          { format: 'pt' },
        );
        const valid = Buffer.concat([planned.header, Buffer.alloc(planned.fileBytes - planned.header.byteLength)]);
        const interesting = fc.constantFrom(...Buffer.from('{}[]",:\\0123456789-.eE '), 0, 1, 0x7f, 0x80, 0xff);
        const change = fc.tuple(fc.nat(planned.header.byteLength - 1), fc.oneof(interesting, fc.nat(255)));
        let refused = 0;
        const baseline = process.memoryUsage();
        await fc.assert(
          fc.asyncProperty(
            fc.array(change, { minLength: 1, maxLength: 6 }),
            fc.option(fc.nat(valid.byteLength), { freq: 4 }),
            async (changes, cut) => {
              const content = Buffer.from(valid);
              for (const [position, value] of changes) content[position] = value;
              try {
                await readLayout(folder, cut === null ? content : content.subarray(0, cut));
              } catch (error) {
                if (!(error instanceof SecateurError) || error.reason !== 'INVALID_CHECKPOINT') throw error;
                refused += 1;
              }
            },
          ),
          { numRuns: 1500, seed: 20250516 },
        );
        expect(refused).toBeGreaterThan(500);
        expect(process.memoryUsage().arrayBuffers - baseline.arrayBuffers).toBeLessThan(8 << 20);
      }),
    20_000,
  );
});

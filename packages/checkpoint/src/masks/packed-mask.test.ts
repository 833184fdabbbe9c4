import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { countBits, countCommonBits, countDropped, findSetPadding, maskRowBytes, packZeros } from './packed-mask.js';

const bitOf = (mask: Uint8Array, columns: number, index: number): number => {
  const [row, column] = [Math.floor(index / columns), index % columns];
  return (mask[row * maskRowBytes(columns) + (column >> 3)]! >> (column & 7)) & 1;
};

describe('packZeros', () => {
  test.each([
    ['two', Uint16Array, [0, 0x8000, 1, 0x8001, 0x7c00, 0xffff]],
    ['four', Uint32Array, [0, 0x80000000, 1, 0x80000001, 0x00008000, 0x7f800000, 0xffffffff]],
  ] as const)('sets the bit of each element of %s bytes that is +0 or -0, and no other', (_bytes, Elements, patterns) =>
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 5 }),
        fc.infiniteStream(fc.constantFrom(...patterns)),
        (...drawn) => {
          const [columns, rows, stream] = drawn;
          const elements = Elements.from([...stream.take(rows * columns)]);
          const mask = new Uint8Array(rows * maskRowBytes(columns)).fill(0xff);
          packZeros(elements, columns, mask);
          for (const [index, element] of elements.entries()) {
            expect(bitOf(mask, columns, index)).toBe(element === 0 || element === patterns[1] ? 1 : 0);
          }
          expect(findSetPadding(mask, columns)).toBe(-1);
          expect(countBits(mask)).toBe(elements.filter((element) => element === 0 || element === patterns[1]).length);
        },
      ),
    ),
  );
});

test('counts the bits of each byte, alone and in common', () => {
  const all = Uint8Array.from({ length: 256 }, (_, byte) => byte);
  expect(countBits(all)).toBe(1024);
  expect(countCommonBits(all, all)).toBe(1024);
  expect(
    countCommonBits(
      all,
      all.map((byte) => ~byte),
    ),
  ).toBe(0);
  expect(countCommonBits(Uint8Array.of(0b1100, 0b1), Uint8Array.of(0b0110, 0b1))).toBe(2);
});

test('counts the bits of each row, wherever rows and mask begin in memory', () => {
  fc.assert(
    fc.property(fc.nat(9), fc.integer({ min: 1, max: 90 }), fc.nat(6), fc.infiniteStream(fc.nat(255)), (offset, columns, rows, stream) => {
      const rowBytes = maskRowBytes(columns);
      // Bits around the mask are none of its own.
      const memory = new Uint8Array(offset + rows * rowBytes + 5).fill(0xff);
      const mask = memory.subarray(offset, offset + rows * rowBytes);
      for (let index = 0; index < mask.length; index++) mask[index] = stream.next().value;
      const simple = (bytes: Uint8Array): number => bytes.reduce((sum, byte) => sum + byte.toString(2).replaceAll('0', '').length, 0);
      const expected = Array.from({ length: rows }, (_, row) => simple(mask.subarray(row * rowBytes, (row + 1) * rowBytes)));
      expect([...countDropped(mask, columns)]).toEqual(expected);
      expect(countBits(mask)).toBe(simple(mask));
    }),
  );
});

test('finds the row with a bit behind its last column', () => {
  expect(findSetPadding(Uint8Array.of(0xff, 0x0f, 0xff, 0x0f), 12)).toBe(-1);
  expect(findSetPadding(Uint8Array.of(0xff, 0x0f, 0xff, 0x1f), 12)).toBe(1);
  expect(findSetPadding(Uint8Array.of(0xff, 0x80, 0x00, 0x00), 15)).toBe(0);
  expect(findSetPadding(Uint8Array.of(0xff, 0xff), 16)).toBe(-1);
});

import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  expectFailure,
  modelPath,
  safetensorsBytes,
  TINY_MODEL,
  TINY_PROJECTIONS,
  withTemporaryFolder,
  writeTinyModel,
} from '../../test/support.js';
import { compareMasks } from './compare-masks.js';
import { exportMasks } from './export-masks.js';

const [q = '', k = ''] = TINY_PROJECTIONS;

/** Writes masks of [1, bytes] each. */
async function writeMasks(path: string, masks: Readonly<Record<string, Uint8Array>>): Promise<void> {
  let end = 0;
  const header = Object.fromEntries(
    Object.entries(masks).map(([name, { byteLength }]) => {
      const start = end;
      end += byteLength;
      return [name, { dtype: 'U8', shape: [1, byteLength], data_offsets: [start, end] }];
    }),
  );
  await writeFile(path, safetensorsBytes(header, Buffer.concat(Object.values(masks))));
}

describe('compareMasks', () => {
  test('counts what each drops and both drop', () =>
    withTemporaryFolder(async (folder) => {
      const [a, b] = [join(folder, 'a'), join(folder, 'b')];
      await fc.assert(
        fc.asyncProperty(fc.array(fc.tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 0, max: 255 }))), async (pairs) => {
          await writeMasks(a, { w: Uint8Array.from(pairs, ([left]) => left) });
          await writeMasks(b, { w: Uint8Array.from(pairs, ([, right]) => right) });
          const count = (pick: (left: number, right: number) => number): number =>
            pairs.reduce((sum, [left, right]) => sum + pick(left, right).toString(2).replaceAll('0', '').length, 0);
          const [inA, inB, inBoth] = [count((left) => left), count((_left, right) => right), count((left, right) => left & right)];
          const overlap = {
            droppedInA: inA,
            droppedInB: inB,
            droppedInBoth: inBoth,
            agreement: inA + inB === 0 ? 1 : inBoth / (inA + inB - inBoth),
          };
          expect(await compareMasks(a, b)).toEqual({
            a,
            b,
            ...overlap,
            projections: [{ name: 'w', ...overlap }],
            onlyInA: [],
            onlyInB: [],
          });
        }),
        { numRuns: 50 },
      );
    }));

  test('lists what is only in one; the totals are of the others', () =>
    withTemporaryFolder(async (folder) => {
      const [a, b] = [join(folder, 'a'), join(folder, 'b')];
      await writeMasks(a, { u: Uint8Array.of(255), v: Uint8Array.of(1), w: Uint8Array.of(3) });
      await writeMasks(b, { w: Uint8Array.of(6), v: Uint8Array.of(2), x: Uint8Array.of(255) });
      const comparison = await compareMasks(a, b);
      expect(comparison.projections.map(({ name, agreement }) => [name, agreement])).toEqual([
        ['v', 0],
        ['w', 1 / 3],
      ]);
      expect(comparison).toMatchObject({ onlyInA: ['u'], onlyInB: ['x'], droppedInA: 3, droppedInB: 3, droppedInBoth: 1, agreement: 0.2 });
    }));

  test('a folder is its masks.safetensors, or else the zeros of its checkpoint', () =>
    withTemporaryFolder(async (folder) => {
      await exportMasks(modelPath('books-qwen2'), join(folder, 'masks'));
      const same = await compareMasks(modelPath('books-qwen2'), join(folder, 'masks'));
      expect(same).toMatchObject({ a: modelPath('books-qwen2'), agreement: 1, onlyInA: [], onlyInB: [] });
      expect(same.projections).toHaveLength(28);
      await mkdir(join(folder, 'pruned'));
      await rename(join(folder, 'masks'), join(folder, 'pruned/masks.safetensors'));
      expect(await compareMasks(join(folder, 'pruned'), modelPath('books-qwen2'))).toMatchObject({
        a: join(folder, 'pruned/masks.safetensors'),
        agreement: 1,
      });
    }));

  test('refuses masks of different shapes, and bits behind the columns that either side knows', () =>
    withTemporaryFolder(async (folder) => {
      const [masks, dense] = [join(folder, 'masks'), join(folder, 'dense')];
      const elements = Object.values(TINY_MODEL).reduce((sum, shape) => sum + shape.reduce((product, size) => product * size, 1), 0);
      await writeTinyModel(dense, 'F32', Buffer.alloc(4 * elements));
      await writeMasks(masks, { [k]: Uint8Array.of(0, 0) });
      await expectFailure(
        () => compareMasks(dense, masks),
        'INVALID_DATA',
        /k_proj\.weight" is \[6, 12\] in .*dense and \[1, 2 bytes\] in .*masks; compare masks of one model/,
      );
      const padded = Buffer.alloc(24);
      padded[3] = 0x80;
      await writeFile(masks, safetensorsBytes({ [q]: { dtype: 'U8', shape: [12, 2], data_offsets: [0, 24] } }, padded));
      for (const [a, b] of [
        [dense, masks],
        [masks, dense],
      ] as const) {
        await expectFailure(() => compareMasks(a, b), 'INVALID_DATA', /masks: row 1 of the mask .* sets bits behind its 12 columns/);
      }
    }));

  test('names what is not there', () =>
    withTemporaryFolder(async (folder) => {
      await writeMasks(join(folder, 'a'), {});
      await expectFailure(() => compareMasks(join(folder, 'a'), join(folder, 'b')), 'NOT_FOUND', /b: it does not exist/);
      await expectFailure(() => compareMasks(join(folder, 'a'), folder), 'NOT_FOUND', /config\.json/);
    }));
});

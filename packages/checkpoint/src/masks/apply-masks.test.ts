import { mkdir, readdir, readFile, truncate, writeFile } from 'node:fs/promises';
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
import { SafetensorsFileWriter } from '../safetensors/safetensors-file-writer.js';
import { applyMasks } from './apply-masks.js';
import { exportMasks } from './export-masks.js';
import { MaskFile } from './mask-file.js';
import { maskEntries } from './packed-mask.js';

const ELEMENTS = Object.values(TINY_MODEL).reduce((sum, shape) => sum + shape.reduce((product, size) => product * size, 1), 0);

interface Drawn {
  readonly bytesEach: 2 | 4;
  readonly weights: Uint16Array | Uint32Array;
  /** Whether each element is to be dropped; only those of the masked projections are. */
  readonly dropped: readonly boolean[];
  readonly masked: readonly string[];
}

const models: fc.Arbitrary<Drawn> = fc.constantFrom<2 | 4>(2, 4).chain((bytesEach) => {
  const sign = bytesEach === 2 ? 0x8000 : 0x80000000;
  const pattern = fc.oneof(fc.constantFrom(0, sign), fc.integer({ min: 0, max: 2 * sign - 1 }));
  return fc.record({
    bytesEach: fc.constant(bytesEach),
    weights: fc
      .array(pattern, { minLength: ELEMENTS, maxLength: ELEMENTS })
      .map((values) => (bytesEach === 2 ? Uint16Array.from(values) : Uint32Array.from(values))),
    dropped: fc.array(fc.boolean(), { minLength: ELEMENTS, maxLength: ELEMENTS }),
    masked: fc.subarray(TINY_PROJECTIONS),
  });
});

/** Each projection with the index of its first element. */
function* projections(): Generator<{ name: string; rows: number; columns: number; start: number }> {
  let start = 0;
  for (const name of TINY_PROJECTIONS) {
    const [rows = 0, columns = 0] = TINY_MODEL[name] ?? [];
    yield { name, rows, columns, start };
    start += rows * columns;
  }
}

/** The packed masks of the projections by name; `isDropped` is asked for the index of each element. */
function packAll(isDropped: (element: number, name: string) => boolean): Map<string, Uint8Array> {
  const masks = new Map<string, Uint8Array>();
  for (const { name, rows, columns, start } of projections()) {
    const rowBytes = Math.ceil(columns / 8);
    const mask = new Uint8Array(rows * rowBytes);
    for (let index = 0; index < rows * columns; index++) {
      const [row, column] = [Math.floor(index / columns), index % columns];
      if (isDropped(start + index, name)) mask[row * rowBytes + (column >> 3)]! |= 1 << (column & 7);
    }
    masks.set(name, mask);
  }
  return masks;
}

async function writeMasks(path: string, masks: ReadonlyMap<string, Uint8Array>): Promise<void> {
  const entries = maskEntries([...projections()].filter(({ name }) => masks.has(name)));
  const writer = await SafetensorsFileWriter.create(path, entries);
  for (const [name, mask] of masks) await writer.write(name, mask);
  await writer.finish();
  await writer.close();
}

async function readMasks(path: string): Promise<Map<string, Uint8Array>> {
  const file = await MaskFile.open(path);
  const masks = new Map<string, Uint8Array>();
  for (const [name, { rows, rowBytes }] of file.masks) {
    const mask = new Uint8Array(rows * rowBytes);
    await file.readRows(name, 0, mask);
    masks.set(name, mask);
  }
  await file.close();
  return masks;
}

describe('applyMasks', () => {
  test('zeroes the dropped weights and nothing else; what is exported then is the masks and the zeros that were there', () =>
    withTemporaryFolder(async (folder) => {
      let run = 0;
      await fc.assert(
        fc.asyncProperty(models, async ({ bytesEach, weights, dropped, masked }) => {
          const work = join(folder, String(run++));
          const [dense, output] = [join(work, 'dense'), join(work, 'out')];
          const bytes = Buffer.from(weights.buffer);
          await writeTinyModel(dense, bytesEach === 2 ? 'BF16' : 'F32', bytes);
          const isDropped = (element: number, name: string): boolean => masked.includes(name) && dropped[element] === true;
          const all = packAll(isDropped);
          await writeMasks(join(work, 'masks'), new Map([...all].filter(([name]) => masked.includes(name))));

          const applied = await applyMasks(dense, join(work, 'masks'), output);
          expect(applied.untouched).toEqual(TINY_PROJECTIONS.filter((name) => !masked.includes(name)));
          expect(applied.projections.map(({ name }) => name)).toEqual(masked);

          const expected = await readFile(join(dense, 'model.safetensors'));
          const dataStart = expected.byteLength - bytes.byteLength;
          let droppedInAll = 0;
          for (const { name, rows, columns, start } of projections()) {
            for (let element = start; element < start + rows * columns; element++) {
              if (!isDropped(element, name)) continue;
              expected.fill(0, dataStart + element * bytesEach, dataStart + (element + 1) * bytesEach);
              droppedInAll += 1;
            }
          }
          expect(applied.dropped).toBe(droppedInAll);
          expect((await readFile(join(output, 'model.safetensors'))).equals(expected)).toBe(true);
          expect((await readdir(output)).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer_config.json']);
          expect(await readFile(join(output, 'config.json'))).toEqual(await readFile(join(dense, 'config.json')));

          await exportMasks(output, join(work, 'exported'));
          const isZero = (element: number): boolean => weights[element] === 0 || weights[element] === 2 ** (8 * bytesEach - 1);
          const union = packAll((element, name) => isDropped(element, name) || isZero(element));
          expect(await readMasks(join(work, 'exported'))).toEqual(union);
        }),
        { numRuns: 25 },
      );
    }));

  test('tells its progress; nothing is left of what was cancelled', () =>
    withTemporaryFolder(async (folder) => {
      const [masks, output] = [join(folder, 'masks'), join(folder, 'out')];
      await exportMasks(modelPath('books-llama'), masks);
      const progress: number[] = [];
      const onProgress = (done: number, total: number): number => progress.push(done / total);
      await applyMasks(modelPath('books-llama'), masks, output, { onProgress });
      expect(progress.at(-1)).toBe(1);
      expect(progress).toEqual(progress.toSorted((left, right) => left - right));
      const stop = new AbortController();
      const stopped = applyMasks(modelPath('books-llama'), masks, join(folder, 'other'), {
        signal: stop.signal,
        onProgress: () => stop.abort(),
      });
      await expectFailure(() => stopped, 'CANCELLED', /./);
      expect((await readdir(folder)).sort()).toEqual(['masks', 'out']);
    }));
});

describe('masks that do not fit', () => {
  const q = TINY_PROJECTIONS[0] ?? '';

  /** Applies a masks file with these tensors to the tiny model. */
  const apply = (header: object, data: Uint8Array, reason: 'INVALID_DATA' | 'ALREADY_EXISTS', message: RegExp, taken?: string) =>
    withTemporaryFolder(async (folder) => {
      await writeTinyModel(join(folder, 'dense'), 'BF16', Buffer.alloc(2 * ELEMENTS, 1));
      await writeFile(join(folder, 'masks'), safetensorsBytes(header, data));
      if (taken !== undefined) await mkdir(join(folder, taken));
      await expectFailure(() => applyMasks(join(folder, 'dense'), join(folder, 'masks'), join(folder, 'out')), reason, message);
      expect((await readdir(folder)).sort()).toEqual(['dense', 'masks', ...(taken === undefined ? [] : [taken])]);
    });

  test('another tensor than a projection', () =>
    apply(
      {
        'model.embed_tokens.weight': { dtype: 'U8', shape: [1, 1], data_offsets: [0, 1] },
        b: { dtype: 'U8', shape: [1, 1], data_offsets: [1, 2] },
      },
      Buffer.alloc(2),
      'INVALID_DATA',
      /masks: .*dense has no projection for the mask "model\.embed_tokens\.weight" and 1 more; use masks/,
    ));

  test.each([
    [[12, 1], 12],
    [[11, 2], 22],
    [[2, 12], 24],
  ])('the shape %j', (shape, bytes) =>
    apply(
      { [q]: { dtype: 'U8', shape, data_offsets: [0, bytes] } },
      Buffer.alloc(bytes),
      'INVALID_DATA',
      new RegExp(`q_proj\\.weight" has the shape \\[${shape.join(', ')}\\]; the 12 x 12 weights of .*dense need \\[12, 2\\]`),
    ),
  );

  test.each([
    ['I8', [12, 2], 24],
    ['F32', [6], 24],
    ['U8', [24], 24],
  ])('the dtype %s %j', (dtype, shape, bytes) =>
    apply(
      { [q]: { dtype, shape, data_offsets: [0, bytes] } },
      Buffer.alloc(bytes),
      'INVALID_DATA',
      new RegExp(`masks: tensor .*q_proj\\.weight" is ${dtype} \\[${shape.join(', ')}\\]; a mask is U8 \\[rows, ceil`),
    ),
  );

  test('bits behind the last column', () => {
    const mask = Buffer.alloc(24, 0x0f);
    mask[15] = 0x10;
    return apply(
      { [q]: { dtype: 'U8', shape: [12, 2], data_offsets: [0, 24] } },
      mask,
      'INVALID_DATA',
      /masks: row 7 of the mask ".*q_proj\.weight" sets bits behind its 12 columns/,
    );
  });

  test('a file that was cut', () =>
    apply({ [q]: { dtype: 'U8', shape: [12, 2], data_offsets: [0, 24] } }, Buffer.alloc(23), 'INVALID_DATA', /it is truncated/));

  test.each([
    ['out', /out exists; choose another name/],
    ['out.partial', /out\.partial exists: it is being written, or was left unfinished/],
  ])('an output beside %s', (taken, message) => apply({}, Buffer.alloc(0), 'ALREADY_EXISTS', message, taken));
});

describe('exportMasks', () => {
  test('never replaces a file, and leaves nothing when it is stopped', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'masks');
      await writeFile(path, 'mine');
      await expectFailure(() => exportMasks(modelPath('books-opt'), path), 'ALREADY_EXISTS', /masks exists/);
      expect(await readFile(path, 'utf8')).toBe('mine');
      const stop = new AbortController();
      const stopped = exportMasks(modelPath('books-opt'), join(folder, 'other'), { signal: stop.signal, onProgress: () => stop.abort() });
      await expectFailure(() => stopped, 'CANCELLED', /./);
      expect(await readdir(folder)).toEqual(['masks']);
    }));

  test('refuses a checkpoint that was cut', () =>
    withTemporaryFolder(async (folder) => {
      await writeTinyModel(folder, 'F32', Buffer.alloc(4 * ELEMENTS));
      await truncate(join(folder, 'model.safetensors'), 1000);
      await expectFailure(() => exportMasks(folder, join(folder, 'masks')), 'INVALID_CHECKPOINT', /truncated/);
    }));
});

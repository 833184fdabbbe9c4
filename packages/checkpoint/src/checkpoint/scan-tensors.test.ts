import { readdir, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { CHUNK_BYTES, loadHasher } from '@secateur/core';
import { DataType } from '@secateur/proto/model';
import { expectFailure, modelPath, safetensorsBytes, withTemporaryFolder, writeSingleCheckpoint } from '../../test/support.js';
import { openCheckpoint, type Checkpoint } from './checkpoint.js';
import { decodeElements, findNonFinite } from './float-elements.js';
import { scanTensors } from './scan-tensors.js';

describe('scanTensors', () => {
  test('gives digest and checksums of each tensor once and tells its progress', async () => {
    await using checkpoint = await openCheckpoint(modelPath('books-qwen2'));
    const hasher = await loadHasher();
    const names = ['model.embed_tokens.weight', 'model.norm.weight', 'model.embed_tokens.weight'];
    const progress: number[] = [];
    const scanned = await scanTensors(checkpoint, names, { onProgress: (done, total) => progress.push(done, total) });
    expect([...scanned.keys()]).toEqual(names.slice(0, 2));
    for (const [name, { digest, checksums }] of scanned) {
      const bytes = await checkpoint.readTensor(name);
      expect(digest).toBe(hasher.digest(bytes));
      const chunks = Array.from({ length: Math.ceil(bytes.byteLength / CHUNK_BYTES) }, (_, index) =>
        hasher.checksum(bytes.subarray(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES)),
      );
      expect(Buffer.from(checksums).equals(Buffer.concat(chunks))).toBe(true);
    }
    expect(progress.slice(-2)).toEqual([2097152 + 512, 2097152 + 512]);
  });

  const values = { F32: [4, 0x7f800000, 0xff800001], F16: [2, 0x7c00, 0xfe01], BF16: [2, 0xff80, 0x7fc0] } as const;
  test.each(Object.entries(values))(
    'names file, tensor and element of a NaN or infinity in %s, wherever it is',
    (dtype, [bytes, ...patterns]) =>
      withTemporaryFolder(async (folder) => {
        // A little over three chunks, and an odd number of elements.
        const elements = (3 << 20) / bytes + 3;
        const header = {
          good: { dtype, shape: [1], data_offsets: [0, bytes] },
          bad: { dtype, shape: [elements], data_offsets: [bytes, bytes * (elements + 1)] },
        };
        for (const [place, pattern] of [0, 1, (1 << 20) / bytes, elements - 1].flatMap((index) =>
          patterns.map((bits) => [index, bits] as const),
        )) {
          const data = Buffer.alloc(bytes * (elements + 1));
          data.writeUIntLE(pattern, bytes * (place + 1), bytes);
          await writeSingleCheckpoint(folder, safetensorsBytes(header, data));
          await using checkpoint = await openCheckpoint(folder);
          await scanTensors(checkpoint, ['good']);
          const message = new RegExp(`^model.safetensors: tensor "bad" holds NaN or infinity at element ${place};`);
          await expectFailure(() => scanTensors(checkpoint, ['bad']), 'INVALID_CHECKPOINT', message);
        }
      }),
  );

  test('stops when cancelled and refuses unknown names', async () => {
    await using checkpoint = await openCheckpoint(modelPath('books-opt'));
    const cancellation = new AbortController();
    const scan = scanTensors(checkpoint, checkpoint.tensors.keys(), {
      signal: cancellation.signal,
      onProgress: () => cancellation.abort(),
    });
    await expectFailure(() => scan, 'CANCELLED', /./);
    await expectFailure(() => scanTensors(checkpoint, ['nothing']), 'NOT_FOUND', /"nothing"/);
  });
});

describe('scanTensors on threads', () => {
  const MEBIBYTE = 2 ** 20;
  /** In the order of the file: several parts, a part and a bit, whole chunks, a few bytes, none. */
  const SIZES = { large: 17 * MEBIBYTE + 6, longer: 8 * MEBIBYTE + 2, exact: 8 * MEBIBYTE, tiny: 10, empty: 0, last: 3 * MEBIBYTE };
  const NAMES = Object.keys(SIZES);

  /** Opens a checkpoint of float16 tensors whose bytes differ, with these bytes of each tensor replaced by the high byte of an infinity. */
  async function withCheckpoint(
    use: (checkpoint: Checkpoint, path: string) => Promise<void>,
    infinities: Readonly<Partial<Record<string, readonly number[]>>> = {},
  ): Promise<void> {
    await withTemporaryFolder(async (folder) => {
      const header: Record<string, object> = {};
      let end = 0;
      const starts = new Map<string, number>();
      for (const [name, bytes] of Object.entries(SIZES)) {
        starts.set(name, end);
        header[name] = { dtype: 'F16', shape: [bytes / 2], data_offsets: [end, end + bytes] };
        end += bytes;
      }
      const data = Buffer.alloc(end, Buffer.from(Uint8Array.from({ length: 254 }, (_, index) => index % 120)));
      for (const [name, places = []] of Object.entries(infinities)) for (const place of places) data[starts.get(name)! + place] = 0x7c;
      await writeSingleCheckpoint(folder, safetensorsBytes(header, data));
      await using checkpoint = await openCheckpoint(folder);
      await use(checkpoint, join(folder, 'model.safetensors'));
    });
  }

  test('gives what one thread gives, and tells progress that only grows', () =>
    withCheckpoint(async (checkpoint) => {
      for (const names of [NAMES, ['last', 'tiny', 'large'], ['empty'], []]) {
        const expected = await scanTensors(checkpoint, names, { threads: 1 });
        const progress: number[] = [];
        const onProgress = (done: number): void => void progress.push(done);
        const scanned = await scanTensors(checkpoint, names, { threads: 3, onProgress });
        expect([...scanned]).toEqual([...expected]);
        expect(progress).toEqual([...new Set(progress)].sort((one, other) => one - other));
        expect(progress.at(-1) ?? 0).toBe(names.reduce((sum, name) => sum + checkpoint.tensor(name).bytes, 0));
      }
    }));

  test('tells of the first tensor that is wrong in the order of the names, at its first element, whichever thread is faster', () => {
    // What comes first is found last: at the end of a long part, while others have theirs at the begin.
    const infinities = { large: [16 * MEBIBYTE - 1, 16 * MEBIBYTE + 1], longer: [1, 3], exact: [8 * MEBIBYTE - 1], tiny: [9], last: [1] };
    return withCheckpoint(async (checkpoint) => {
      for (const names of [NAMES, [...NAMES].reverse(), ['exact', 'large', 'longer'], ['tiny', 'last', 'longer']]) {
        const messageWith = async (threads: number): Promise<string> =>
          scanTensors(checkpoint, names, { threads }).then(
            () => 'none',
            (error: unknown) => (error as Error).message,
          );
        const expected = await messageWith(1);
        expect(expected).toMatch(/^model.safetensors: tensor ".+" holds NaN or infinity at element \d+;/);
        for (const threads of [2, 5]) expect(await messageWith(threads)).toBe(expected);
      }
    }, infinities);
  });

  test('tells where a file ends that was cut, as one thread does', () =>
    withCheckpoint(async (checkpoint, path) => {
      await truncate(path, 20 * MEBIBYTE);
      for (const threads of [1, 3]) {
        const message = new RegExp(`Cannot read ${path}: it ended at byte ${20 * MEBIBYTE}, it was cut while in use`);
        await expectFailure(() => scanTensors(checkpoint, NAMES, { threads }), 'FAILED_PRECONDITION', message);
      }
    }));

  test('leaves no thread and no descriptor, whether it ends, fails or is cancelled', () =>
    withCheckpoint(
      async (checkpoint) => {
        const good = NAMES.filter((name) => name !== 'last');
        // The first loads what this process keeps.
        await scanTensors(checkpoint, good, { threads: 3 });
        const held = async (): Promise<object> => ({
          threads: (await readdir('/proc/self/task')).length,
          descriptors: (await readdir('/proc/self/fd')).length,
        });
        const before = await held();
        for (let round = 0; round < 2; ++round) {
          await scanTensors(checkpoint, good, { threads: 3 });
          expect(await held()).toEqual(before);
          await expectFailure(() => scanTensors(checkpoint, NAMES, { threads: 3 }), 'INVALID_CHECKPOINT', /"last"/);
          expect(await held()).toEqual(before);
          const cancellation = new AbortController();
          const [signal, onProgress] = [cancellation.signal, () => cancellation.abort()];
          await expectFailure(() => scanTensors(checkpoint, good, { threads: 3, signal, onProgress }), 'CANCELLED', /./);
          expect(await held()).toEqual(before);
          // While threads are starting, and before that.
          const scan = scanTensors(checkpoint, good, { threads: 3, signal: AbortSignal.timeout(1) });
          await expectFailure(() => scan, 'CANCELLED', /./);
          await expectFailure(() => scanTensors(checkpoint, good, { threads: 3, signal: AbortSignal.abort() }), 'CANCELLED', /./);
          expect(await held()).toEqual(before);
        }
      },
      { last: [1] },
    ));
});

describe('elements', () => {
  /** The value of a 16-bit pattern by the definition of its format. */
  function define(pattern: number, exponentBits: number): number {
    const fractionBits = 15 - exponentBits;
    const exponent = (pattern >> fractionBits) & (2 ** exponentBits - 1);
    const fraction = (pattern & (2 ** fractionBits - 1)) / 2 ** fractionBits;
    const bias = 2 ** (exponentBits - 1) - 1;
    const magnitude =
      exponent === 2 ** exponentBits - 1
        ? fraction === 0
          ? Infinity
          : NaN
        : exponent === 0
          ? fraction * 2 ** (1 - bias)
          : (1 + fraction) * 2 ** (exponent - bias);
    return pattern >> 15 === 0 ? magnitude : -magnitude;
  }

  test.each([
    [DataType.F16, 5],
    [DataType.BF16, 8],
  ])('every pattern of data type %d has its value', (dataType, exponentBits) => {
    const patterns = Uint16Array.from({ length: 1 << 16 }, (_, pattern) => pattern);
    const values = decodeElements(new Uint8Array(patterns.buffer), dataType);
    const wrong = values.findIndex((value, pattern) => !Object.is(value, Math.fround(define(pattern, exponentBits))));
    expect(wrong).toBe(-1);
  });

  test.each([DataType.F16, DataType.BF16, DataType.F32])(
    'the first non-finite value of data type %d is found as by looking at each',
    (dataType) => {
      const words = dataType === DataType.F32 ? fc.uint32Array({ maxLength: 60 }) : fc.uint16Array({ maxLength: 60 });
      fc.assert(
        fc.property(words, (elements) => {
          const bytes = new Uint8Array(Uint8Array.from(new Uint8Array(elements.buffer, elements.byteOffset, elements.byteLength)).buffer);
          const values = decodeElements(bytes, dataType);
          expect(findNonFinite(bytes, dataType)).toBe(values.findIndex((value) => !Number.isFinite(value)));
        }),
        { numRuns: 300, seed: 20250516 },
      );
    },
  );
});

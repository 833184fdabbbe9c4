import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { CHUNK_BYTES, loadHasher } from '@secateur/core';
import { DataType } from '@secateur/proto/model';
import { expectFailure, modelPath, safetensorsBytes, withTemporaryFolder, writeSingleCheckpoint } from '../../test/support.js';
import { openCheckpoint } from './checkpoint.js';
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

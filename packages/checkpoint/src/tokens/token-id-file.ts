import { SecateurError } from '@secateur/core';
import type { InputOptions } from '../files/input-file.js';
import { openInput } from '../files/open-input.js';
import type { ReadableFile } from '../files/readable-file.js';
import { readSafetensorsLayout } from '../safetensors/header.js';
import { MAXIMUM_TOKENS, type TokenSource } from './token-set.js';

const TENSOR = 'input_ids';
const PART_TOKENS = 1 << 20;

/** The first rows of the integer tensor `input_ids` [samples, tokens] of a safetensors file. */
export async function readTokenIds(
  path: string,
  { samples, sequenceLength }: Pick<TokenSource, 'samples' | 'sequenceLength'>,
  options: InputOptions,
): Promise<{ readonly ids: Int32Array; readonly sequenceLength: number }> {
  const fail = (what: string): SecateurError => new SecateurError('INVALID_DATA', `${path}: ${what}.`);
  const file = await openInput(path, options);
  try {
    const tensor = (await readSafetensorsLayout(file, 'INVALID_DATA')).tensors.get(TENSOR);
    if (tensor === undefined) throw fail(`it has no tensor ${TENSOR}`);
    const { dtype, shape, fileOffset } = tensor;
    if (dtype !== 'I32' && dtype !== 'I64') throw fail(`${TENSOR} is ${dtype}; it must be I32 or I64`);
    const [rows = 0, columns = 0] = shape;
    if (shape.length !== 2 || rows === 0 || columns === 0)
      throw fail(`${TENSOR} has the shape [${shape.join(', ')}]; it must be [samples, tokens]`);
    if (sequenceLength !== 0 && sequenceLength !== columns) {
      throw fail(`${TENSOR} has ${columns} tokens per sample, ${sequenceLength} were asked for`);
    }
    if (samples > rows) {
      throw fail(
        `${TENSOR} has ${rows} samples, ${samples} were asked for; ${samples - rows} are missing, ask for at most ${rows} (--samples ${rows})`,
      );
    }
    const total = (samples === 0 ? rows : samples) * columns;
    if (total > MAXIMUM_TOKENS) throw fail(`${total} tokens are above the limit of ${MAXIMUM_TOKENS}; ask for fewer samples`);
    const ids = new Int32Array(total);
    for (let start = 0; start < total; start += PART_TOKENS) {
      const part = ids.subarray(start, Math.min(total, start + PART_TOKENS));
      if (dtype === 'I32') await file.readInto(new Uint8Array(part.buffer, part.byteOffset, part.byteLength), fileOffset + 4 * start);
      else await readWideIds(file, fileOffset + 8 * start, part);
    }
    return { ids, sequenceLength: columns };
  } finally {
    await file.close();
  }
}

/** 64-bit ids that do not fit 32 bits become -1, which no vocabulary has. */
async function readWideIds(file: ReadableFile, position: number, target: Int32Array): Promise<void> {
  const wide = new BigInt64Array(target.length);
  await file.readInto(new Uint8Array(wide.buffer), position);
  for (const [index, id] of wide.entries()) target[index] = id >= 0n && id <= 0x7fffffffn ? Number(id) : -1;
}

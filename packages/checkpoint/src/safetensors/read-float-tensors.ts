import { SecateurError } from '@secateur/core';
import type { InputOptions } from '../files/input-file.js';
import { openInput } from '../files/open-input.js';
import { readSafetensorsLayout } from './header.js';

/** Reads float32 vectors by name. Throws INVALID_DATA naming the one that is missing or has another type or length. */
export async function readFloatTensors(
  path: string,
  vectors: readonly { readonly name: string; readonly length: number }[],
  options: InputOptions,
): Promise<Map<string, Float32Array>> {
  const fail = (what: string): SecateurError => new SecateurError('INVALID_DATA', `${path}: ${what}.`);
  const file = await openInput(path, options);
  try {
    const { tensors } = await readSafetensorsLayout(file, 'INVALID_DATA');
    const read = new Map<string, Float32Array>();
    for (const { name, length } of vectors) {
      const tensor = tensors.get(name);
      if (tensor === undefined) throw fail(`it has no tensor ${name}`);
      const { dtype, shape, fileOffset } = tensor;
      if (dtype !== 'F32' || shape.length !== 1 || shape[0] !== length) {
        throw fail(`${name} is ${dtype} of shape [${shape.join(', ')}]; it must be F32 of shape [${length}]`);
      }
      const values = new Float32Array(length);
      await file.readInto(new Uint8Array(values.buffer), fileOffset);
      read.set(name, values);
    }
    return read;
  } finally {
    await file.close();
  }
}

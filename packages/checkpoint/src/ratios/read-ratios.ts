import { SecateurError, type GivenRatios } from '@secateur/core';
import type { InputOptions } from '../files/input-file.js';
import { readSmallFile } from '../files/open-input.js';
import { JsonReader } from '../safetensors/json-reader.js';
import { isNpy, readNpyVector } from './npy.js';

/** Far more than any model has projections. */
const MAXIMUM_BYTES = 16 << 20;

/**
 * Reads ratios for blocks or projections: a JSON object of numbers by name, or a vector of NumPy, which its first bytes tell apart. Throws
 * INVALID_DATA naming the file and what in it is wrong.
 */
export async function readRatios(path: string, options: InputOptions): Promise<GivenRatios> {
  const fail = (what: string): SecateurError => new SecateurError('INVALID_DATA', `${path}: ${what}.`);
  const bytes = await readSmallFile(path, MAXIMUM_BYTES, options, (size) =>
    fail(`it has ${size} bytes; a file of ratios has at most ${MAXIMUM_BYTES}`),
  );
  if (isNpy(bytes)) return readNpyVector(bytes, fail);
  const reader = new JsonReader(bytes.toString('utf8'), fail);
  const ratios = new Map<string, number>();
  reader.object('the object of ratios', (name) => ratios.set(name, reader.number(`the ratio of ${name}`)));
  reader.end();
  return ratios;
}

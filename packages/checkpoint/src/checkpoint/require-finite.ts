import { SecateurError } from '@secateur/core';
import { quote } from '../safetensors/json-reader.js';
import type { TensorEntry } from './checkpoint.js';
import { elementBytes, findNonFinite } from './float-elements.js';

/** Refuses NaN and infinities in a part of a tensor that begins `offset` bytes into it; the error names file, tensor and element. */
export function requireFinite(
  part: Uint8Array,
  offset: number,
  { file, name, dataType }: Pick<TensorEntry, 'file' | 'name' | 'dataType'>,
): void {
  const index = findNonFinite(part, dataType);
  if (index === -1) return;
  const element = offset / elementBytes(dataType) + index;
  throw new SecateurError(
    'INVALID_CHECKPOINT',
    `${file}: tensor ${quote(name)} holds NaN or infinity at element ${element}; such a model cannot be pruned.`,
  );
}

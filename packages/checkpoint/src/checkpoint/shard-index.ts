import { SecateurError } from '@secateur/core';
import type { InputOptions } from '../files/input-file.js';
import { readSmallFile } from '../files/open-input.js';
import { JsonReader, quote } from '../safetensors/json-reader.js';

const MAXIMUM_INDEX_BYTES = 64 << 20;
const MAXIMUM_FILES = 10_000;

/** Which file of a sharded checkpoint holds each tensor, as model.safetensors.index.json tells it. */
export async function readShardIndex(path: string, options: InputOptions): Promise<ReadonlyMap<string, string>> {
  const fail = (what: string): SecateurError => new SecateurError('INVALID_CHECKPOINT', `${path}: ${what}.`);
  const content = await readSmallFile(path, MAXIMUM_INDEX_BYTES, options, (bytes) =>
    fail(`it has ${bytes} bytes, more than the limit of ${MAXIMUM_INDEX_BYTES}`),
  );
  const weightMap = new Map<string, string>();
  const files = new Set<string>();
  const reader = new JsonReader(content.toString('utf8'), fail);
  reader.object('the index', (member) => {
    if (member !== 'weight_map') {
      reader.skip(quote(member));
      return;
    }
    reader.object('weight_map', (tensor) => {
      const file = reader.string(`the file of tensor ${quote(tensor)}`);
      if (!isPlainFileName(file)) throw fail(`tensor ${quote(tensor)} is in ${quote(file)}, which is no plain name of a .safetensors file`);
      files.add(file);
      if (files.size > MAXIMUM_FILES) throw fail(`it names more than ${MAXIMUM_FILES} files`);
      weightMap.set(tensor, file);
    });
  });
  reader.end();
  if (weightMap.size === 0) throw fail('weight_map is missing or empty');
  return weightMap;
}

/** No folder, no hidden file, no characters that any system reads as a part of a path. */
function isPlainFileName(name: string): boolean {
  return /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}\.safetensors$/.test(name);
}

import { DataType } from '@secateur/proto/model';
import { ConfigReader } from './config-reader.js';

const TYPES: ReadonlyMap<unknown, DataType> = new Map([
  ['float32', DataType.F32],
  ['float16', DataType.F16],
  ['bfloat16', DataType.BF16],
]);

/** What a config.json says its tensors are stored as: float32 where it does not tell. */
export function parseStoredType(config: unknown): DataType {
  const reader = new ConfigReader(config);
  // Newer files drop the first part of the name.
  const field = reader.get('dtype') === undefined ? 'torch_dtype' : 'dtype';
  const type = TYPES.get(reader.get(field) ?? 'float32');
  if (type === undefined) throw reader.refuse(field, [...TYPES.keys()].map((name) => JSON.stringify(name)).join(' or '));
  return type;
}

import { DataType } from '@secateur/proto/model';

/** Bits per element of every dtype a safetensors file may name. */
const DTYPE_BITS: ReadonlyMap<string, number> = new Map([
  ['BOOL', 8],
  ['F4', 4],
  ['F6_E2M3', 6],
  ['F6_E3M2', 6],
  ['U8', 8],
  ['I8', 8],
  ['F8_E5M2', 8],
  ['F8_E4M3', 8],
  ['F8_E8M0', 8],
  ['I16', 16],
  ['U16', 16],
  ['F16', 16],
  ['BF16', 16],
  ['I32', 32],
  ['U32', 32],
  ['F32', 32],
  ['C64', 64],
  ['F64', 64],
  ['I64', 64],
  ['U64', 64],
]);

/** Undefined for a name that the format does not know. */
export function dtypeBits(dtype: string): number | undefined {
  return DTYPE_BITS.get(dtype);
}

/** The data type the engine computes with, or unspecified for tensors that are only carried along. */
export function toDataType(dtype: string): DataType {
  switch (dtype) {
    case 'F32':
      return DataType.F32;
    case 'F16':
      return DataType.F16;
    case 'BF16':
      return DataType.BF16;
    default:
      return DataType.UNSPECIFIED;
  }
}

/** N:M patterns: of each `of` consecutive weights of a row at least `zeros` are zero. The stricter one comes first: 2:4 makes 4:8 hold too. */
export const GROUP_PATTERNS = [
  { name: '2:4', zeros: 2, of: 4 },
  { name: '4:8', zeros: 4, of: 8 },
] as const;

export type GroupPattern = (typeof GROUP_PATTERNS)[number];

/** Whether a pattern holds in every group; rows that end with a part of a group have none. `values`: whole rows of `columns`. */
export function followsPattern(values: Float32Array, columns: number, { zeros, of }: GroupPattern): boolean {
  if (columns % of !== 0) return false;
  const mostKept = of - zeros;
  for (let start = 0; start < values.length; start += of) {
    let kept = 0;
    for (let index = start; index < start + of; index++) if (values[index] !== 0) kept += 1;
    if (kept > mostKept) return false;
  }
  return true;
}

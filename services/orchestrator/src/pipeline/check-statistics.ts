import type { InputSite, SiteStatistics } from '@secateur/proto/statistics';

interface ExpectedStatistics {
  /** Columns of each input that was asked for. */
  readonly columns: ReadonlyMap<InputSite, number>;
  /** Quality inputs of the group. */
  readonly inputs: number;
}

/** What is wrong with the statistics of a group, as a node answered them; undefined where they have the right shapes and are finite. */
export function problemOfStatistics(answered: readonly SiteStatistics[], { columns, inputs }: ExpectedStatistics): string | undefined {
  for (const [site, width] of columns) {
    const found = answered.filter((statistics) => statistics.site === site);
    const [statistics] = found;
    if (statistics === undefined || found.length > 1) return `input ${site} ${found.length} times`;
    const { sumsOfSquares, qualityInputs } = statistics;
    if (sumsOfSquares.byteLength !== 8 * width) return `${sumsOfSquares.byteLength} bytes of sums for ${width} columns`;
    const bytes = 4 * width * inputs;
    if (qualityInputs.byteLength !== bytes) return `${qualityInputs.byteLength} bytes of quality inputs instead of ${bytes}`;
    if (!areFinite(sumsOfSquares, 8) || !areFinite(qualityInputs, 4)) return NOT_FINITE;
  }
  return answered.length === columns.size ? undefined : `${answered.length} inputs instead of ${columns.size}`;
}

/** A node's fault, or that of a model whose values overflow, which all nodes answer so. */
export const NOT_FINITE = 'NaN or infinity';

/** Of little-endian floats of that size, which may be unaligned. */
function areFinite(bytes: Uint8Array, size: 4 | 8): boolean {
  const values = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let offset = 0; offset < bytes.byteLength; offset += size) {
    const value = size === 8 ? values.getFloat64(offset, true) : values.getFloat32(offset, true);
    if (!Number.isFinite(value)) return false;
  }
  return true;
}

/** How long to wait before the next attempt: doubles with every failure in a row; a random half keeps those who wait apart. */
export function backoffMs(failures: number, firstMs: number, longestMs: number): number {
  return Math.min(firstMs * 2 ** (failures - 1), longestMs) * (0.5 + Math.random() / 2);
}

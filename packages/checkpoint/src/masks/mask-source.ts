import { SecateurError } from '@secateur/core';
import { quote } from '../safetensors/json-reader.js';
import { findSetPadding } from './packed-mask.js';

/** Bytes of a mask handled at once: the masks of a million weights, so that these take 4 MiB at most. */
const PART_BYTES = 128 << 10;

export interface MaskShape {
  readonly rows: number;
  /** Bytes of a packed row. */
  readonly rowBytes: number;
  /** Unknown where a file has only the packed rows. */
  readonly columns?: number;
}

/** Masks that are read by rows: rows bit-packed, least significant bit first, 1 = dropped. */
export interface MaskSource {
  /** What the masks are read from. */
  readonly path: string;
  /** By the names of the weights. */
  readonly masks: ReadonlyMap<string, MaskShape>;
  /** Fills `target` with whole rows from `firstRow` on; one call at a time. */
  readRows(name: string, firstRow: number, target: Uint8Array, signal?: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

/** A mask cut into runs of rows that are handled one after the other. */
export function* cutRows({ rows, rowBytes }: MaskShape): Generator<{ readonly firstRow: number; readonly rows: number }> {
  const most = Math.max(1, Math.floor(PART_BYTES / rowBytes));
  for (let firstRow = 0; firstRow < rows; firstRow += most) yield { firstRow, rows: Math.min(most, rows - firstRow) };
}

/** Rows of a mask in memory of their own; bits behind the last column are refused because they would be counted. */
export async function readMaskRows(
  source: MaskSource,
  name: string,
  { firstRow, rows }: { readonly firstRow: number; readonly rows: number },
  { rowBytes, columns }: MaskShape,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  const mask = Buffer.allocUnsafeSlow(rows * rowBytes);
  await source.readRows(name, firstRow, mask, signal);
  const row = columns === undefined ? -1 : findSetPadding(mask, columns);
  if (row === -1) return mask;
  throw new SecateurError(
    'INVALID_DATA',
    `${source.path}: row ${firstRow + row} of the mask ${quote(name)} sets bits behind its ${columns} columns; they must be 0.`,
  );
}

/** The text of a row group is unpacked in memory, all at once. */
export const MAXIMUM_GROUP_BYTES = 256 << 20;

export interface RowGroup {
  readonly index: number;
  readonly firstRow: number;
  readonly rows: number;
  readonly bytes: number;
}

/** The text of a row, not yet decoded; undefined where it has none. */
export type TextCell = Uint8Array | undefined;

/** What the process is asked: the row groups of a file, or the cells of one of them. */
export type ParquetRequest =
  | { readonly kind: 'open'; readonly file: number; readonly path: string; readonly bytes: number; readonly textField: string }
  | { readonly kind: 'read'; readonly file: number; readonly group: number };

/** What it needs: bytes of a file. */
export interface ParquetQuestion {
  readonly file: number;
  readonly from: number;
  readonly to: number;
}

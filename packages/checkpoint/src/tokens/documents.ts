import { SecateurError } from '@secateur/core';
import type { InputOptions } from '../files/input-file.js';

/** Documents of a source. Each takes some bytes where it is found and drawn, however short it is. */
const MAXIMUM_DOCUMENTS = 1 << 24;

/** The documents of text files, read one at a time. */
export interface Documents {
  readonly count: number;
  /** The text of a document. */
  read(index: number): Promise<string>;
  close(): Promise<void>;
}

export interface DocumentOptions extends InputOptions {
  /** Field or column that holds the text. */
  readonly textField: string;
  readonly signal?: AbortSignal | undefined;
}

/** Refuses a source with too many of them; `where` names its last file in errors. */
export function requireFewDocuments(where: string, count: number): void {
  if (count <= MAXIMUM_DOCUMENTS) return;
  throw new SecateurError(
    'INVALID_DATA',
    `${where}: the data has more than ${MAXIMUM_DOCUMENTS} documents up to here; give fewer files, or a part of this one.`,
  );
}

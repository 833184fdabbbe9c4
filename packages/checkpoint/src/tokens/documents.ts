import type { InputOptions } from '../files/input-file.js';

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

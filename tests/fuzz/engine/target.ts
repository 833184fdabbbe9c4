import type { Random } from './random.js';

/** Reads inputs as the product would. */
export interface Reader {
  /** Resolves when the input was read, or refused by a SecateurError; whatever else it throws is a finding. */
  read(input: Buffer): Promise<void>;
  /** Bytes of memory that what reads has used at most, where that is another process. */
  peakBytes?(): number;
  close?(): Promise<void>;
}

/** Something that reads what others wrote. */
export interface FuzzTarget {
  /** Pieces that mean something to the reader. */
  readonly words: readonly string[];
  /** Inputs to begin with beside those in tests/fuzz/corpus/NAME. */
  seeds?(): Promise<Buffer[]>;
  /** `folder` is the target's own. */
  open(folder: string): Promise<Reader>;
  /** Puts right what mutation breaks and any reader would refuse, such as a length. */
  repair?(input: Buffer, random: Random): Buffer;
  /** Parts of the addresses of the code whose coverage guides the search; without any the corpus stays as it is. */
  readonly watched?: readonly string[];
  /** How long one input may take. */
  readonly limitMs: number;
}

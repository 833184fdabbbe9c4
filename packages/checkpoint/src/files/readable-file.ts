/** A file of known size that is read at any position, of this machine or of a store. */
export interface ReadableFile {
  /** Path or URL; it names the file in errors. */
  readonly path: string;
  readonly bytes: number;
  /** By which other threads of this process read it too, until it is closed; undefined when it is in a store. */
  readonly descriptor: number | undefined;
  /** Fills `target` with the bytes from `position` on. */
  readInto(target: Uint8Array, position: number, signal?: AbortSignal): Promise<void>;
  /** Whether it was written to since it was opened, as far as that can be told before it is read again. */
  wasChanged(): Promise<boolean>;
  close(): Promise<void>;
}

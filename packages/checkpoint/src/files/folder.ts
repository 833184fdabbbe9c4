/** A file of a folder. */
export interface FolderEntry {
  readonly name: string;
  readonly bytes: number;
}

/** A folder that a model is read from, of this machine or of a store. */
export interface InputFolder {
  /** Absolute path without symbolic links, or URL. */
  readonly path: string;
  /** Whether anything has that name in it. */
  has(name: string): Promise<boolean>;
  /** The files right in it, by name. What is no file, or a broken link, is left out. */
  list(): Promise<FolderEntry[]>;
}

import { open, type FileHandle } from 'node:fs/promises';
import { SecateurError } from '@secateur/core';
import { toFileError, withFileErrors } from './file-errors.js';

/** Node takes less than 2 GiB at once, and Linux too. */
const WRITE_BYTES = 2 ** 30;

/** A file of known size that is written in any order. */
export class OutputFile {
  private constructor(
    readonly path: string,
    private readonly handle: FileHandle,
  ) {}

  /** Makes a new file of `bytes` zero bytes (sparse where the file system can). */
  static async create(path: string, bytes: number): Promise<OutputFile> {
    const handle = await withFileErrors('create', path, () => open(path, 'wx+'));
    try {
      await handle.truncate(bytes);
      return new OutputFile(path, handle);
    } catch (error) {
      await handle.close();
      throw toFileError('create', path, error);
    }
  }

  /** Opens a file that `create` made with the same size. */
  static async reopen(path: string, bytes: number): Promise<OutputFile> {
    const handle = await withFileErrors('open', path, () => open(path, 'r+'));
    try {
      const status = await handle.stat();
      if (!status.isFile() || status.size !== bytes) {
        throw new SecateurError(
          'FAILED_PRECONDITION',
          `Cannot go on with ${path}: it has ${status.size} bytes, ${bytes} are expected. Remove it to begin anew.`,
        );
      }
      return new OutputFile(path, handle);
    } catch (error) {
      await handle.close();
      throw toFileError('open', path, error);
    }
  }

  async write(bytes: Uint8Array, position: number): Promise<void> {
    let done = 0;
    while (done < bytes.byteLength) {
      const length = Math.min(WRITE_BYTES, bytes.byteLength - done);
      const { bytesWritten } = await withFileErrors('write', this.path, () => this.handle.write(bytes, done, length, position + done));
      done += bytesWritten;
    }
  }

  async readInto(target: Uint8Array, position: number): Promise<void> {
    let done = 0;
    while (done < target.byteLength) {
      const { bytesRead } = await withFileErrors('read', this.path, () =>
        this.handle.read(target, done, target.byteLength - done, position + done),
      );
      if (bytesRead === 0) throw new SecateurError('FAILED_PRECONDITION', `Cannot read ${this.path}: it was cut while in use.`);
      done += bytesRead;
    }
  }

  /** Makes what was written survive a power cut. */
  async sync(): Promise<void> {
    await withFileErrors('sync', this.path, () => this.handle.datasync());
  }

  async close(): Promise<void> {
    await withFileErrors('close', this.path, () => this.handle.close());
  }
}

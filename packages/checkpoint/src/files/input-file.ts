import { constants, readSync } from 'node:fs';
import { open, realpath, type FileHandle } from 'node:fs/promises';
import { SecateurError, throwIfCancelled } from '@secateur/core';
import { resolveInsideRoots } from './allowed-roots.js';
import { toFileError, withFileErrors } from './file-errors.js';
import type { ReadableFile } from './readable-file.js';

/** Bytes per read: between two of them a cancelled reader stops. */
const READ_BYTES = 16 << 20;

/** Where input files may really be once symbolic links are followed, and the stores they may be in; anywhere when not given. */
export interface InputOptions {
  readonly allowedRoots?: readonly string[] | undefined;
}

/** A regular file of this machine, opened for reading at any position. */
export class InputFile implements ReadableFile {
  private constructor(
    readonly path: string,
    readonly bytes: number,
    private readonly changedMs: number,
    private readonly handle: FileHandle,
  ) {}

  get descriptor(): number {
    return this.handle.fd;
  }

  /** Follows symbolic links; what they lead to must be a regular file inside the allowed roots. */
  static async open(path: string, options: InputOptions = {}): Promise<InputFile> {
    const real = await withFileErrors('read', path, () => realpath(path));
    if (options.allowedRoots !== undefined) await resolveInsideRoots(real, options.allowedRoots);
    // O_NONBLOCK: opening a named pipe must not wait for its writer.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    const handle = await withFileErrors('read', path, () => open(real, flags));
    try {
      return await InputFile.adopt(path, handle);
    } catch (error) {
      await handle.close();
      throw toFileError('read', path, error);
    }
  }

  /** The file behind an open handle, which now belongs to it. `path` names it in errors. */
  static async adopt(path: string, handle: FileHandle): Promise<InputFile> {
    const status = await handle.stat();
    if (!status.isFile()) throw new SecateurError('FAILED_PRECONDITION', `Cannot read ${path}: it is not a regular file.`);
    return new InputFile(path, status.size, status.mtimeMs, handle);
  }

  async readInto(target: Uint8Array, position: number, signal?: AbortSignal): Promise<void> {
    let done = 0;
    while (done < target.byteLength) {
      throwIfCancelled(signal);
      const length = Math.min(READ_BYTES, target.byteLength - done);
      const { bytesRead } = await withFileErrors('read', this.path, () => this.handle.read(target, done, length, position + done));
      if (bytesRead === 0) throw cutWhileInUse(this.path, position + done);
      done += bytesRead;
    }
  }

  /** Whether the file was written to since it was opened, as far as its times tell. */
  async wasChanged(): Promise<boolean> {
    const { size, mtimeMs } = await this.handle.stat();
    return size !== this.bytes || mtimeMs !== this.changedMs;
  }

  async close(): Promise<void> {
    await this.handle.close();
  }
}

/** The same as `InputFile.readInto` on a thread that has only the descriptor of the file, and nothing else to do. */
export function readDescriptorInto(path: string, descriptor: number, target: Uint8Array, position: number): void {
  for (let done = 0; done < target.byteLength;) {
    let bytesRead;
    try {
      bytesRead = readSync(descriptor, target, done, target.byteLength - done, position + done);
    } catch (error) {
      throw toFileError('read', path, error);
    }
    if (bytesRead === 0) throw cutWhileInUse(path, position + done);
    done += bytesRead;
  }
}

function cutWhileInUse(path: string, end: number): SecateurError {
  return new SecateurError('FAILED_PRECONDITION', `Cannot read ${path}: it ended at byte ${end}, it was cut while in use.`);
}

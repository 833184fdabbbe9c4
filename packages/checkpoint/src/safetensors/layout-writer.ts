import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { SecateurError } from '@secateur/core';
import { withFileErrors } from '../files/file-errors.js';
import { OutputFile } from '../files/output-file.js';
import type { SafetensorsLayout, TensorLayout } from './header.js';
import { quote } from './json-reader.js';

/** Writes bytes of a tensor from an offset inside it on. */
export type WritePart = (bytes: Uint8Array, offset: number) => Promise<void>;

/** Writes the tensors of one safetensors file whose layout is known, in any order, each exactly once. */
export class LayoutWriter {
  private constructor(
    private readonly layout: SafetensorsLayout,
    private readonly file: OutputFile,
    private readonly written: Set<string>,
  ) {}

  /** Makes the file with its header; nothing may be there yet. */
  static async create(path: string, layout: SafetensorsLayout): Promise<LayoutWriter> {
    await requireSpace(path, layout.fileBytes);
    const file = await OutputFile.create(path, layout.fileBytes);
    try {
      await file.write(layout.header, 0);
      return new LayoutWriter(layout, file, new Set());
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Opens a file that `create` made with the same layout; `written` are the tensors it holds already, all others are written anew. */
  static async resume(path: string, layout: SafetensorsLayout, written: Iterable<string>): Promise<LayoutWriter> {
    const file = await OutputFile.reopen(path, layout.fileBytes);
    try {
      const header = Buffer.allocUnsafeSlow(layout.header.byteLength);
      await file.readInto(header, 0);
      if (!header.equals(layout.header)) {
        throw new SecateurError(
          'FAILED_PRECONDITION',
          `Cannot go on with ${path}: its header belongs to another model. Remove it to begin anew.`,
        );
      }
      const writer = new LayoutWriter(layout, file, new Set());
      for (const name of written) writer.written.add(writer.tensor(name).name);
      return writer;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  get path(): string {
    return this.file.path;
  }

  /** The tensors that are still to be written, in the order of the header. */
  remaining(): TensorLayout[] {
    return [...this.layout.tensors.values()].filter(({ name }) => !this.written.has(name));
  }

  /** Writes a whole tensor. */
  async write(name: string, bytes: Uint8Array): Promise<void> {
    const tensor = this.tensor(name);
    if (bytes.byteLength !== tensor.bytes) {
      throw new SecateurError(
        'INTERNAL',
        `Tensor ${quote(name)} of ${this.path} has ${tensor.bytes} bytes, ${bytes.byteLength} were given.`,
      );
    }
    await this.writeInParts(name, async (writePart) => writePart(bytes, 0));
  }

  /** Writes a tensor whose bytes come in parts; it counts as written once `produce` has returned. */
  async writeInParts(name: string, produce: (writePart: WritePart) => Promise<void>): Promise<void> {
    const { fileOffset } = this.tensor(name);
    if (this.written.has(name)) throw new SecateurError('INTERNAL', `Tensor ${quote(name)} of ${this.path} was written twice.`);
    this.written.add(name);
    try {
      await produce((bytes, offset) => this.file.write(bytes, fileOffset + offset));
    } catch (error) {
      this.written.delete(name);
      throw error;
    }
  }

  /** Bytes of a tensor that was written. */
  async read(name: string, offset: number, length: number): Promise<Buffer> {
    const { fileOffset, bytes } = this.tensor(name);
    if (!this.written.has(name))
      throw new SecateurError('FAILED_PRECONDITION', `Tensor ${quote(name)} of ${this.path} is not written yet.`);
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0 || offset + length > bytes) {
      throw new SecateurError(
        'INVALID_REQUEST',
        `Bytes ${offset} to ${offset + length} were asked of tensor ${quote(name)}, which has ${bytes}.`,
      );
    }
    const target = Buffer.allocUnsafeSlow(length);
    await this.file.readInto(target, fileOffset + offset);
    return target;
  }

  async sync(): Promise<void> {
    await this.file.sync();
  }

  /** Checks that every tensor is written and makes the file durable. */
  async finish(): Promise<void> {
    const [missing, ...more] = this.remaining();
    if (missing !== undefined) {
      const others = more.length > 0 ? ` and ${more.length} more` : '';
      throw new SecateurError('FAILED_PRECONDITION', `${this.path} is not complete: ${quote(missing.name)}${others} are not written.`);
    }
    await this.sync();
  }

  async close(): Promise<void> {
    await this.file.close();
  }

  private tensor(name: string): TensorLayout {
    const tensor = this.layout.tensors.get(name);
    if (tensor === undefined) throw new SecateurError('NOT_FOUND', `${this.path} has no tensor ${quote(name)}.`);
    return tensor;
  }
}

/** Fails early when the file system cannot take the file; a sparse file would only fail in the middle of the work. */
export async function requireSpace(path: string, neededBytes: number): Promise<void> {
  const folder = dirname(path);
  const { bavail, bsize } = await withFileErrors('write to', folder, () => statfs(folder));
  const availableBytes = bavail * bsize;
  if (neededBytes <= availableBytes) return;
  throw new SecateurError(
    'RESOURCE_EXHAUSTED',
    `${path} needs ${neededBytes} bytes, ${folder} has ${availableBytes} left; free some space or choose another output folder.`,
    {
      metadata: { neededBytes: String(neededBytes), availableBytes: String(availableBytes) },
    },
  );
}

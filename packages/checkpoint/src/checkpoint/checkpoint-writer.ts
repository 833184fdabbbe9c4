import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { CHUNK_BYTES, loadHasher, SecateurError, throwIfCancelled, type ChunkDigest, type Hasher } from '@secateur/core';
import { withFileErrors } from '../files/file-errors.js';
import { syncDirectory } from '../files/publish-directory.js';
import { quote } from '../safetensors/json-reader.js';
import { LayoutWriter, requireSpace, type WritePart } from '../safetensors/layout-writer.js';
import type { Checkpoint } from './checkpoint.js';

const COPY_BYTES = 4 * CHUNK_BYTES;

export interface CopyOptions {
  /** Of tensors as they were read before; one that is copied and has another now was changed meanwhile. */
  readonly digests?: ReadonlyMap<string, string> | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Told after every copied part: bytes so far and in all. */
  readonly onProgress?: ((doneBytes: number, totalBytes: number) => void) | undefined;
}

/** Writes a checkpoint with the files, names, dtypes, order and metadata of another one; tensors come in any order, each exactly once. */
export class CheckpointWriter {
  private constructor(
    private readonly source: Checkpoint,
    private readonly directory: string,
    private readonly writers: ReadonlyMap<string, LayoutWriter>,
  ) {}

  /** Begins in an existing folder that holds none of the files yet. */
  static async create(source: Checkpoint, directory: string): Promise<CheckpointWriter> {
    const neededBytes = source.files.reduce((sum, { layout }) => sum + layout.fileBytes, 0);
    await requireSpace(join(directory, source.files[0]?.name ?? ''), neededBytes);
    return CheckpointWriter.openWriters(source, directory, (path, name) => LayoutWriter.create(path, layoutOf(source, name)));
  }

  /** Goes on with what `create` began from the same checkpoint; `written` are the tensors that are durable, all others are written anew. */
  static async resume(source: Checkpoint, directory: string, written: Iterable<string>): Promise<CheckpointWriter> {
    const byFile = new Map<string, string[]>();
    for (const name of written) {
      const file = source.tensors.get(name)?.file;
      if (file === undefined) throw new SecateurError('NOT_FOUND', `${source.directory} has no tensor ${quote(name)}.`);
      const names = byFile.get(file);
      if (names === undefined) byFile.set(file, [name]);
      else names.push(name);
    }
    return CheckpointWriter.openWriters(source, directory, (path, name) =>
      LayoutWriter.resume(path, layoutOf(source, name), byFile.get(name) ?? []),
    );
  }

  private static async openWriters(
    source: Checkpoint,
    directory: string,
    openWriter: (path: string, name: string) => Promise<LayoutWriter>,
  ): Promise<CheckpointWriter> {
    const writers = new Map<string, LayoutWriter>();
    try {
      for (const { name } of source.files) writers.set(name, await openWriter(join(directory, name), name));
      return new CheckpointWriter(source, directory, writers);
    } catch (error) {
      await Promise.all([...writers.values()].map((writer) => writer.close()));
      throw error;
    }
  }

  /** Writes a whole tensor, once. */
  async writeTensor(name: string, bytes: Uint8Array): Promise<void> {
    await this.writerOf(name).write(name, bytes);
  }

  /** Writes a tensor whose bytes come in parts, once; it counts as written when `produce` has returned. */
  async writeTensorInParts(name: string, produce: (writePart: WritePart) => Promise<void>): Promise<void> {
    await this.writerOf(name).writeInParts(name, produce);
  }

  /** Bytes of a tensor that was written. */
  async readTensor(name: string, offset: number, length: number): Promise<Buffer> {
    return this.writerOf(name).read(name, offset, length);
  }

  /** Copies every tensor that was not written from the source, as it is. */
  async copyRemaining({ digests, signal, onProgress }: CopyOptions = {}): Promise<void> {
    const hasher = await loadHasher();
    const remaining = [...this.writers.values()].flatMap((writer) => writer.remaining().map((tensor) => ({ writer, ...tensor })));
    const totalBytes = remaining.reduce((sum, { bytes }) => sum + bytes, 0);
    const buffer = Buffer.allocUnsafeSlow(Math.min(COPY_BYTES, totalBytes));
    let doneBytes = 0;
    for (const { writer, name, bytes } of remaining) {
      const expected = digests?.get(name);
      const digest = hasher.createDigest();
      await writer.writeInParts(name, async (writePart) => {
        for (let offset = 0; offset < bytes; offset += COPY_BYTES) {
          throwIfCancelled(signal);
          const part = buffer.subarray(0, Math.min(COPY_BYTES, bytes - offset));
          await this.source.readTensorInto(name, part, { offset, signal });
          if (expected !== undefined) addTo(digest, hasher, part);
          await writePart(part, offset);
          doneBytes += part.byteLength;
          onProgress?.(doneBytes, totalBytes);
        }
        if (expected !== undefined && digest.hex() !== expected) throw this.source.changedTensor(name);
      });
    }
  }

  /** Makes what was written durable. */
  async sync(): Promise<void> {
    await Promise.all([...this.writers.values()].map((writer) => writer.sync()));
  }

  /** Checks that every tensor is written, copies the companion files and makes the folder durable. */
  async finish(): Promise<void> {
    for (const writer of this.writers.values()) await writer.finish();
    for (const name of this.source.companionFiles)
      await writeDurably(join(this.directory, name), await this.source.readCompanionFile(name));
    await syncDirectory(this.directory);
  }

  async close(): Promise<void> {
    await Promise.all([...this.writers.values()].map((writer) => writer.close()));
  }

  private writerOf(tensor: string): LayoutWriter {
    const writer = this.writers.get(this.source.tensors.get(tensor)?.file ?? '');
    if (writer === undefined) throw new SecateurError('NOT_FOUND', `${this.source.directory} has no tensor ${quote(tensor)}.`);
    return writer;
  }
}

function layoutOf(source: Checkpoint, file: string): Checkpoint['files'][number]['layout'] {
  const layout = source.files.find(({ name }) => name === file)?.layout;
  if (layout === undefined) throw new SecateurError('INTERNAL', `${source.directory} has no file ${file}.`);
  return layout;
}

/** `part` begins at a multiple of a chunk. */
function addTo(digest: ChunkDigest, hasher: Hasher, part: Uint8Array): void {
  for (let start = 0; start < part.byteLength; start += CHUNK_BYTES) {
    digest.addChecksum(hasher.checksum(part.subarray(start, start + CHUNK_BYTES)));
  }
}

async function writeDurably(path: string, content: Buffer): Promise<void> {
  await withFileErrors('write', path, async () => {
    const handle = await open(path, 'w');
    try {
      await handle.writeFile(content);
      await handle.datasync();
    } finally {
      await handle.close();
    }
  });
}

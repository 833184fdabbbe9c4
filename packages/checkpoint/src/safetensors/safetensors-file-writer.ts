import { LayoutWriter, type WritePart } from './layout-writer.js';
import { planSafetensorsLayout } from './header.js';

/** A tensor of a file to be written. */
export interface SafetensorsEntry {
  readonly name: string;
  /** As in the format, such as `U8` or `F32`. */
  readonly dtype: string;
  readonly shape: readonly number[];
}

/** Writes a new safetensors file; tensors are stored in the order of the entries and may come in any order. */
export class SafetensorsFileWriter {
  private constructor(private readonly writer: LayoutWriter) {}

  static async create(
    path: string,
    entries: readonly SafetensorsEntry[],
    metadata?: Readonly<Record<string, string>>,
  ): Promise<SafetensorsFileWriter> {
    return new SafetensorsFileWriter(await LayoutWriter.create(path, planSafetensorsLayout(entries, metadata)));
  }

  /** Goes on with a file that `create` made from the same entries and metadata; `written` are the tensors it holds already. */
  static async resume(
    path: string,
    entries: readonly SafetensorsEntry[],
    written: Iterable<string>,
    metadata?: Readonly<Record<string, string>>,
  ): Promise<SafetensorsFileWriter> {
    return new SafetensorsFileWriter(await LayoutWriter.resume(path, planSafetensorsLayout(entries, metadata), written));
  }

  /** Writes a whole tensor, once. */
  async write(name: string, bytes: Uint8Array): Promise<void> {
    await this.writer.write(name, bytes);
  }

  /** Writes a tensor whose bytes come in parts, once; it counts as written when `produce` has returned. */
  async writeInParts(name: string, produce: (writePart: WritePart) => Promise<void>): Promise<void> {
    await this.writer.writeInParts(name, produce);
  }

  /** Makes what was written durable. */
  async sync(): Promise<void> {
    await this.writer.sync();
  }

  /** Checks that every tensor is written and makes the file durable. */
  async finish(): Promise<void> {
    await this.writer.finish();
  }

  async close(): Promise<void> {
    await this.writer.close();
  }
}

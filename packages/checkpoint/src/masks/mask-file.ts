import { SecateurError } from '@secateur/core';
import type { InputOptions } from '../files/input-file.js';
import { openInput } from '../files/open-input.js';
import type { ReadableFile } from '../files/readable-file.js';
import { readSafetensorsLayout, type TensorLayout } from '../safetensors/header.js';
import { quote } from '../safetensors/json-reader.js';
import type { MaskShape, MaskSource } from './mask-source.js';

/** Name of the masks in a pruned output. */
export const MASKS_FILE = 'masks.safetensors';

/** A file of masks as a pruned output has it: a U8 tensor [rows, ceil(columns / 8)] for each projection. */
export class MaskFile implements MaskSource {
  private constructor(
    private readonly file: ReadableFile,
    private readonly tensors: ReadonlyMap<string, TensorLayout>,
    readonly masks: ReadonlyMap<string, MaskShape>,
  ) {}

  static async open(path: string, options: InputOptions = {}): Promise<MaskFile> {
    const file = await openInput(path, options);
    try {
      const { tensors } = await readSafetensorsLayout(file, 'INVALID_DATA');
      const masks = new Map([...tensors].map(([name, tensor]) => [name, toMaskShape(path, tensor)]));
      return new MaskFile(file, tensors, masks);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  get path(): string {
    return this.file.path;
  }

  async readRows(name: string, firstRow: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const [tensor, mask] = [this.tensors.get(name), this.masks.get(name)];
    if (tensor === undefined || mask === undefined) throw new SecateurError('NOT_FOUND', `${this.path} has no mask ${quote(name)}.`);
    await this.file.readInto(target, tensor.fileOffset + firstRow * mask.rowBytes, signal);
  }

  async close(): Promise<void> {
    await this.file.close();
  }
}

function toMaskShape(path: string, { name, dtype, shape }: TensorLayout): MaskShape {
  const [rows, rowBytes, ...more] = shape;
  if (dtype === 'U8' && rows !== undefined && rowBytes !== undefined && more.length === 0) return { rows, rowBytes };
  throw new SecateurError(
    'INVALID_DATA',
    `${path}: tensor ${quote(name)} is ${dtype} [${shape.join(', ')}]; a mask is U8 [rows, ceil(columns / 8)], as in ${MASKS_FILE} of a pruned output.`,
  );
}

import { parseArchitecture, planModel, SecateurError, type PlannedProjection } from '@secateur/core';
import { openCheckpoint, type Checkpoint } from '../checkpoint/checkpoint.js';
import { elementBytes, rawElements } from '../checkpoint/float-elements.js';
import type { InputOptions } from '../files/input-file.js';
import { ReusedMemory } from '../files/reused-memory.js';
import { quote } from '../safetensors/json-reader.js';
import type { MaskShape, MaskSource } from './mask-source.js';
import { maskRowBytes, packZeros } from './packed-mask.js';

/** The weights of a checkpoint that pruning may drop, in network order. */
export function listProjections(checkpoint: Checkpoint): PlannedProjection[] {
  const { blocks } = planModel(parseArchitecture(checkpoint.config), checkpoint.tensors);
  return blocks.flatMap(({ projections }) => projections);
}

/** The exact zeros of a checkpoint's projections as masks; +0 and -0 count alike. */
export class CheckpointZeros implements MaskSource {
  readonly masks: ReadonlyMap<string, MaskShape & { readonly columns: number }>;
  private readonly memory = new ReusedMemory();

  private constructor(
    private readonly checkpoint: Checkpoint,
    /** In network order. */
    readonly projections: readonly PlannedProjection[],
  ) {
    this.masks = new Map(projections.map(({ name, rows, columns }) => [name, { rows, columns, rowBytes: maskRowBytes(columns) }]));
  }

  static async open(directory: string, options: InputOptions = {}): Promise<CheckpointZeros> {
    const checkpoint = await openCheckpoint(directory, options);
    try {
      return new CheckpointZeros(checkpoint, listProjections(checkpoint));
    } catch (error) {
      await checkpoint.close();
      throw error;
    }
  }

  get path(): string {
    return this.checkpoint.directory;
  }

  async readRows(name: string, firstRow: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const mask = this.masks.get(name);
    if (mask === undefined) throw new SecateurError('NOT_FOUND', `${this.path} has no projection ${quote(name)}.`);
    const bytesEach = elementBytes(this.checkpoint.tensor(name).dataType);
    const weights = this.memory.take((target.byteLength / mask.rowBytes) * mask.columns * bytesEach);
    await this.checkpoint.readTensorInto(name, weights, { offset: firstRow * mask.columns * bytesEach, signal });
    packZeros(rawElements(weights, bytesEach), mask.columns, target);
  }

  async close(): Promise<void> {
    await this.checkpoint.close();
  }
}

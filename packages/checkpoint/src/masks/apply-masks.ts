import { SecateurError, type PlannedProjection } from '@secateur/core';
import { CheckpointWriter, type CopyOptions } from '../checkpoint/checkpoint-writer.js';
import { openCheckpoint, type Checkpoint } from '../checkpoint/checkpoint.js';
import { elementBytes } from '../checkpoint/float-elements.js';
import { createDirectoryAtOnce } from '../files/create-at-once.js';
import type { InputOptions } from '../files/input-file.js';
import { ReusedMemory } from '../files/reused-memory.js';
import { quote } from '../safetensors/json-reader.js';
import { applyMask } from './apply-mask.js';
import { listProjections } from './checkpoint-zeros.js';
import { sumMasks, type MaskSummary } from './export-masks.js';
import { MaskFile } from './mask-file.js';
import { cutRows, readMaskRows } from './mask-source.js';
import { maskRowBytes } from './packed-mask.js';

export interface AppliedMasks {
  /** The checkpoint that was read. */
  readonly directory: string;
  readonly file: string;
  readonly output: string;
  readonly projections: readonly MaskSummary[];
  /** Of the projections with a mask. */
  readonly weights: number;
  readonly dropped: number;
  /** Projections that the file has no mask for; they are as they were. */
  readonly untouched: readonly string[];
}

/**
 * Writes a copy of a checkpoint in which the dropped weights are +0 and all other bytes what they are. It appears under its name when it
 * is whole; masks of another model are refused before anything is written.
 */
export async function applyMasks(
  directory: string,
  file: string,
  output: string,
  options: InputOptions & CopyOptions = {},
): Promise<AppliedMasks> {
  const checkpoint = await openCheckpoint(directory, options);
  try {
    const masks = await MaskFile.open(file, options);
    try {
      const all = listProjections(checkpoint);
      checkFit(masks, checkpoint, all);
      const masked = all.filter(({ name }) => masks.masks.has(name));
      const projections: MaskSummary[] = [];
      await createDirectoryAtOnce(output, async (partial) => {
        projections.push(...(await writeMasked(checkpoint, masks, masked, partial, options)));
      });
      const untouched = all.filter(({ name }) => !masks.masks.has(name)).map(({ name }) => name);
      return { directory: checkpoint.directory, file, output, projections, ...sumMasks(projections), untouched };
    } finally {
      await masks.close();
    }
  } finally {
    await checkpoint.close();
  }
}

/** Every mask must be of a projection of the model, and have its shape. */
function checkFit({ path, masks }: MaskFile, { directory }: Checkpoint, projections: readonly PlannedProjection[]): void {
  const known = new Map(projections.map((projection) => [projection.name, projection]));
  const [unknown, ...more] = [...masks.keys()].filter((name) => !known.has(name));
  if (unknown !== undefined) {
    const others = more.length > 0 ? ` and ${more.length} more` : '';
    throw new SecateurError(
      'INVALID_DATA',
      `${path}: ${directory} has no projection for the mask ${quote(unknown)}${others}; use masks that were made from this model.`,
    );
  }
  for (const [name, { rows, rowBytes }] of masks) {
    const projection = known.get(name);
    if (projection === undefined || (rows === projection.rows && rowBytes === maskRowBytes(projection.columns))) continue;
    throw new SecateurError(
      'INVALID_DATA',
      `${path}: the mask ${quote(name)} has the shape [${rows}, ${rowBytes}]; the ${projection.rows} x ${projection.columns} weights of ${directory} need ` +
        `[${projection.rows}, ${maskRowBytes(projection.columns)}]. Use masks that were made from this model.`,
    );
  }
}

async function writeMasked(
  checkpoint: Checkpoint,
  masks: MaskFile,
  projections: readonly PlannedProjection[],
  partial: string,
  { signal, onProgress }: CopyOptions,
): Promise<MaskSummary[]> {
  const totalBytes = [...checkpoint.tensors.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  const memory = new ReusedMemory();
  let doneBytes = 0;
  const summaries: MaskSummary[] = [];
  const writer = await CheckpointWriter.create(checkpoint, partial);
  try {
    for (const { name, rows, columns } of projections) {
      const bytesEach = elementBytes(checkpoint.tensor(name).dataType);
      const shape = { rows, columns, rowBytes: maskRowBytes(columns) };
      let dropped = 0;
      await writer.writeTensorInParts(name, async (writePart) => {
        for (const part of cutRows(shape)) {
          const mask = await readMaskRows(masks, name, part, shape, signal);
          const offset = part.firstRow * columns * bytesEach;
          const weights = memory.take(part.rows * columns * bytesEach);
          await checkpoint.readTensorInto(name, weights, { offset, signal });
          for (const count of await applyMask(name, weights, { rows: part.rows, columns, elementBytes: bytesEach }, mask)) dropped += count;
          await writePart(weights, offset);
          doneBytes += weights.byteLength;
          onProgress?.(doneBytes, totalBytes);
        }
      });
      summaries.push({ name, rows, columns, dropped });
    }
    await writer.copyRemaining({ signal, onProgress: (copiedBytes) => onProgress?.(doneBytes + copiedBytes, totalBytes) });
    await writer.finish();
  } finally {
    await writer.close();
  }
  return summaries;
}

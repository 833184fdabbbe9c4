import type { ScanOptions } from '../checkpoint/scan-tensors.js';
import { createFileAtOnce } from '../files/create-at-once.js';
import type { InputOptions } from '../files/input-file.js';
import { SafetensorsFileWriter } from '../safetensors/safetensors-file-writer.js';
import { CheckpointZeros } from './checkpoint-zeros.js';
import { cutRows, readMaskRows } from './mask-source.js';
import { countBits, maskEntries } from './packed-mask.js';

/** How much of one projection a mask drops. */
export interface MaskSummary {
  /** Name of the weight. */
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  readonly dropped: number;
}

export interface ExportedMasks {
  /** The checkpoint. */
  readonly directory: string;
  readonly file: string;
  readonly projections: readonly MaskSummary[];
  /** Of all projections. */
  readonly weights: number;
  readonly dropped: number;
}

/** Writes the exact zeros of a checkpoint's projections as a new file of masks, which appears under its name when it is whole. */
export async function exportMasks(directory: string, file: string, options: InputOptions & ScanOptions = {}): Promise<ExportedMasks> {
  const zeros = await CheckpointZeros.open(directory, options);
  try {
    const projections: MaskSummary[] = [];
    await createFileAtOnce(file, async (partial) => {
      const writer = await SafetensorsFileWriter.create(partial, maskEntries(zeros.projections));
      try {
        projections.push(...(await writeMasks(zeros, writer, options)));
        await writer.finish();
      } finally {
        await writer.close();
      }
    });
    return { directory: zeros.path, file, projections, ...sumMasks(projections) };
  } finally {
    await zeros.close();
  }
}

/** Of all projections. */
export function sumMasks(projections: readonly MaskSummary[]): { weights: number; dropped: number } {
  return {
    weights: projections.reduce((sum, { rows, columns }) => sum + rows * columns, 0),
    dropped: projections.reduce((sum, { dropped }) => sum + dropped, 0),
  };
}

async function writeMasks(
  zeros: CheckpointZeros,
  writer: SafetensorsFileWriter,
  { signal, onProgress }: ScanOptions,
): Promise<MaskSummary[]> {
  const totalBytes = [...zeros.masks.values()].reduce((sum, { rows, rowBytes }) => sum + rows * rowBytes, 0);
  let doneBytes = 0;
  const summaries: MaskSummary[] = [];
  for (const [name, shape] of zeros.masks) {
    let dropped = 0;
    await writer.writeInParts(name, async (writePart) => {
      for (const part of cutRows(shape)) {
        const mask = await readMaskRows(zeros, name, part, shape, signal);
        await writePart(mask, part.firstRow * shape.rowBytes);
        dropped += countBits(mask);
        doneBytes += mask.byteLength;
        onProgress?.(doneBytes, totalBytes);
      }
    });
    summaries.push({ name, rows: shape.rows, columns: shape.columns, dropped });
  }
  return summaries;
}

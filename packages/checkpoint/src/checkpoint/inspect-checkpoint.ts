import { parseArchitecture, planModel, type ModelPlan, type PlannedProjection } from '@secateur/core';
import type { Architecture, DataType } from '@secateur/proto/model';
import type { InputOptions } from '../files/input-file.js';
import { openCheckpoint, type Checkpoint } from './checkpoint.js';
import { decodeElements, elementBytes } from './float-elements.js';
import { followsPattern, GROUP_PATTERNS, type GroupPattern } from './group-patterns.js';
import type { ScanOptions } from './scan-tensors.js';

const PART_BYTES = 4 << 20;

/** Name of an N:M pattern, such as `2:4`. */
type PatternName = GroupPattern['name'];

/** What the weights of one projection look like. */
export interface ProjectionSummary {
  /** Name of the tensor. */
  readonly name: string;
  /** Index of its block. */
  readonly block: number;
  readonly rows: number;
  readonly columns: number;
  readonly dataType: DataType;
  /** Weights that are exactly zero. */
  readonly zeros: number;
  /** Rows and columns that are zero throughout. */
  readonly deadRows: number;
  readonly deadColumns: number;
  readonly nans: number;
  readonly infinities: number;
  /** The N:M patterns that hold in every group of the projection. */
  readonly patterns: readonly PatternName[];
  /** Of the finite weights; both 0 when there are none. */
  readonly minimum: number;
  readonly maximum: number;
}

/** What the projections of one block add up to. */
export interface BlockSummary {
  /** Its index. */
  readonly block: number;
  readonly weights: number;
  readonly zeros: number;
  /** zeros / weights. */
  readonly sparsity: number;
  readonly deadRows: number;
  readonly deadColumns: number;
  readonly nans: number;
  readonly infinities: number;
  /** The N:M patterns that hold in each of its projections. */
  readonly patterns: readonly PatternName[];
}

export interface CheckpointSummary {
  readonly directory: string;
  readonly architecture: Architecture;
  readonly files: number;
  readonly tensors: number;
  /** Of all tensors. */
  readonly bytes: number;
  readonly projections: readonly ProjectionSummary[];
  readonly blocks: readonly BlockSummary[];
  /** Of all projections. */
  readonly weights: number;
  readonly zeros: number;
  /** zeros / weights. */
  readonly sparsity: number;
}

/** Reads every projection of a checkpoint once, in bounded parts. */
export async function inspectCheckpoint(directory: string, options: InputOptions & ScanOptions = {}): Promise<CheckpointSummary> {
  const checkpoint = await openCheckpoint(directory, options);
  try {
    const model: ModelPlan = planModel(parseArchitecture(checkpoint.config), checkpoint.tensors);
    const planned = model.blocks.flatMap(({ index, projections }) => projections.map((projection) => ({ block: index, projection })));
    const totalBytes = planned.reduce((sum, { projection }) => sum + checkpoint.tensor(projection.name).bytes, 0);
    let doneBytes = 0;
    const projections: ProjectionSummary[] = [];
    for (const { block, projection } of planned) {
      const onPart = (bytes: number): void => {
        doneBytes += bytes;
        options.onProgress?.(doneBytes, totalBytes);
      };
      projections.push(await summarizeProjection(checkpoint, block, projection, onPart, options.signal));
    }
    const blocks = model.blocks.map(({ index }) => summarizeBlock(index, projections));
    const { weights, zeros } = sumWeights(projections);
    return {
      directory: checkpoint.directory,
      architecture: model.architecture,
      files: checkpoint.files.length,
      tensors: checkpoint.tensors.size,
      bytes: [...checkpoint.tensors.values()].reduce((sum, { bytes }) => sum + bytes, 0),
      projections,
      blocks,
      weights,
      zeros,
      sparsity: weights === 0 ? 0 : zeros / weights,
    };
  } finally {
    await checkpoint.close();
  }
}

function sumWeights(projections: readonly ProjectionSummary[]): { weights: number; zeros: number } {
  return {
    weights: projections.reduce((sum, { rows, columns }) => sum + rows * columns, 0),
    zeros: projections.reduce((sum, { zeros }) => sum + zeros, 0),
  };
}

function summarizeBlock(block: number, all: readonly ProjectionSummary[]): BlockSummary {
  const projections = all.filter((projection) => projection.block === block);
  const sum = (count: 'deadRows' | 'deadColumns' | 'nans' | 'infinities'): number =>
    projections.reduce((total, projection) => total + projection[count], 0);
  const { weights, zeros } = sumWeights(projections);
  return {
    block,
    weights,
    zeros,
    sparsity: weights === 0 ? 0 : zeros / weights,
    deadRows: sum('deadRows'),
    deadColumns: sum('deadColumns'),
    nans: sum('nans'),
    infinities: sum('infinities'),
    patterns: GROUP_PATTERNS.map(({ name }) => name).filter((name) => projections.every(({ patterns }) => patterns.includes(name))),
  };
}

async function summarizeProjection(
  checkpoint: Checkpoint,
  block: number,
  { name, rows, columns }: PlannedProjection,
  onPart: (bytes: number) => void,
  signal: AbortSignal | undefined,
): Promise<ProjectionSummary> {
  const { dataType, bytes } = checkpoint.tensor(name);
  const rowBytes = columns * elementBytes(dataType);
  const rowsPerPart = Math.max(1, Math.floor(PART_BYTES / rowBytes));
  const liveColumns = new Uint8Array(columns);
  const counts = { zeros: 0, deadRows: 0, nans: 0, infinities: 0 };
  let patterns: readonly GroupPattern[] = GROUP_PATTERNS;
  let minimum = Infinity;
  let maximum = -Infinity;
  const buffer = Buffer.allocUnsafeSlow(Math.min(bytes, rowsPerPart * rowBytes));
  for (let firstRow = 0; firstRow < rows; firstRow += rowsPerPart) {
    const part = buffer.subarray(0, Math.min(rowsPerPart, rows - firstRow) * rowBytes);
    await checkpoint.readTensorInto(name, part, { offset: firstRow * rowBytes, signal });
    const values = decodeElements(part, dataType);
    patterns = patterns.filter((pattern) => followsPattern(values, columns, pattern));
    for (let start = 0; start < values.length; start += columns) {
      let live = false;
      for (let column = 0; column < columns; column++) {
        const value = values[start + column] ?? NaN;
        if (value === 0) {
          counts.zeros += 1;
          continue;
        }
        live = true;
        liveColumns[column] = 1;
        if (value - value === 0) {
          if (value < minimum) minimum = value;
          if (value > maximum) maximum = value;
        } else if (Number.isNaN(value)) counts.nans += 1;
        else counts.infinities += 1;
      }
      if (!live) counts.deadRows += 1;
    }
    onPart(part.byteLength);
  }
  if (counts.zeros > 0) {
    minimum = Math.min(minimum, 0);
    maximum = Math.max(maximum, 0);
  }
  if (minimum > maximum) minimum = maximum = 0;
  const deadColumns = liveColumns.reduce((sum, live) => sum + 1 - live, 0);
  return {
    name,
    block,
    rows,
    columns,
    dataType,
    ...counts,
    deadColumns,
    patterns: patterns.map((pattern) => pattern.name),
    minimum,
    maximum,
  };
}

import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { SecateurError } from '@secateur/core';
import type { ScanOptions } from '../checkpoint/scan-tensors.js';
import type { InputOptions } from '../files/input-file.js';
import { quote } from '../safetensors/json-reader.js';
import { CheckpointZeros } from './checkpoint-zeros.js';
import { MaskFile, MASKS_FILE } from './mask-file.js';
import { cutRows, readMaskRows, type MaskShape, type MaskSource } from './mask-source.js';
import { countBits, countCommonBits } from './packed-mask.js';

/** How far two masks drop the same weights. */
export interface MaskOverlap {
  readonly droppedInA: number;
  readonly droppedInB: number;
  readonly droppedInBoth: number;
  /** Of the weights that either drops, the share that both drop; 1 when none is dropped. */
  readonly agreement: number;
}

export interface MaskComparison extends MaskOverlap {
  /** What the masks were read from. */
  readonly a: string;
  readonly b: string;
  /** Those that are in both; the totals are theirs. */
  readonly projections: readonly (MaskOverlap & { readonly name: string })[];
  /** Names of the others. */
  readonly onlyInA: readonly string[];
  readonly onlyInB: readonly string[];
}

/** Compares the masks of two files or folders. A folder without masks.safetensors is a checkpoint, whose exact zeros count as dropped. */
export async function compareMasks(pathA: string, pathB: string, options: InputOptions & ScanOptions = {}): Promise<MaskComparison> {
  const a = await openMasks(pathA, options);
  try {
    const b = await openMasks(pathB, options);
    try {
      return await compareSources(a, b, options);
    } finally {
      await b.close();
    }
  } finally {
    await a.close();
  }
}

async function openMasks(path: string, options: InputOptions): Promise<MaskSource> {
  if (!(await isKind(path, 'isDirectory'))) return MaskFile.open(path, options);
  const inside = join(path, MASKS_FILE);
  return (await isKind(inside, 'isFile')) ? MaskFile.open(inside, options) : CheckpointZeros.open(path, options);
}

async function isKind(path: string, kind: 'isDirectory' | 'isFile'): Promise<boolean> {
  return stat(path).then(
    (status) => status[kind](),
    () => false,
  );
}

async function compareSources(a: MaskSource, b: MaskSource, { signal, onProgress }: ScanOptions): Promise<MaskComparison> {
  const common = new Map([...a.masks].filter(([name]) => b.masks.has(name)).map(([name]) => [name, commonShape(a, b, name)]));
  const totalBytes = [...common.values()].reduce((sum, { rows, rowBytes }) => sum + rows * rowBytes, 0);
  let doneBytes = 0;
  const projections: (MaskOverlap & { name: string })[] = [];
  for (const [name, shape] of common) {
    let [droppedInA, droppedInB, droppedInBoth] = [0, 0, 0];
    for (const part of cutRows(shape)) {
      const maskA = await readMaskRows(a, name, part, shape, signal);
      const maskB = await readMaskRows(b, name, part, shape, signal);
      droppedInA += countBits(maskA);
      droppedInB += countBits(maskB);
      droppedInBoth += countCommonBits(maskA, maskB);
      doneBytes += maskA.byteLength;
      onProgress?.(doneBytes, totalBytes);
    }
    projections.push({ name, ...toOverlap(droppedInA, droppedInB, droppedInBoth) });
  }
  const sum = (count: 'droppedInA' | 'droppedInB' | 'droppedInBoth'): number =>
    projections.reduce((total, projection) => total + projection[count], 0);
  return {
    a: a.path,
    b: b.path,
    ...toOverlap(sum('droppedInA'), sum('droppedInB'), sum('droppedInBoth')),
    projections,
    onlyInA: [...a.masks.keys()].filter((name) => !b.masks.has(name)),
    onlyInB: [...b.masks.keys()].filter((name) => !a.masks.has(name)),
  };
}

function toOverlap(droppedInA: number, droppedInB: number, droppedInBoth: number): MaskOverlap {
  const droppedInEither = droppedInA + droppedInB - droppedInBoth;
  return { droppedInA, droppedInB, droppedInBoth, agreement: droppedInEither === 0 ? 1 : droppedInBoth / droppedInEither };
}

/** The shape that a mask has in both, with the columns where either knows them. */
function commonShape(a: MaskSource, b: MaskSource, name: string): MaskShape {
  const [shapeA, shapeB] = [a.masks.get(name), b.masks.get(name)];
  if (shapeA === undefined || shapeB === undefined) throw new SecateurError('INTERNAL', `${quote(name)} is not in both.`);
  const columns = shapeA.columns ?? shapeB.columns;
  const sameColumns = columns === (shapeB.columns ?? columns);
  if (shapeA.rows === shapeB.rows && shapeA.rowBytes === shapeB.rowBytes && sameColumns) {
    return columns === undefined ? shapeA : { ...shapeA, columns };
  }
  throw new SecateurError(
    'INVALID_DATA',
    `The mask ${quote(name)} is ${describeShape(shapeA)} in ${a.path} and ${describeShape(shapeB)} in ${b.path}; compare masks of one model.`,
  );
}

function describeShape({ rows, rowBytes, columns }: MaskShape): string {
  return columns === undefined ? `[${rows}, ${rowBytes} bytes]` : `[${rows}, ${columns}]`;
}

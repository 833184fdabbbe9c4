import { resolve } from 'node:path';
import {
  applyMasks as writeMasked,
  compareMasks,
  exportMasks as writeMasks,
  resolveLocation,
  type AppliedMasks,
  type ExportedMasks,
  type MaskComparison,
  type MaskOverlap,
  type MaskSummary,
} from '@secateur/checkpoint';
import { SecateurError } from '@secateur/core';
import Table from 'cli-table3';
import { withInterruption } from '../cluster/with-interruption.js';
import { checkPaths } from '../input/check-request.js';
import { formatCount, formatShare, withoutWeight } from '../output/format.js';
import { createByteProgress } from '../output/progress.js';
import { writeResult } from '../output/write-result.js';

interface MaskOptions {
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** Writes the exact zeros of a checkpoint as a file of masks. */
export async function exportMasks(directory: string, { out, json, quiet }: MaskOptions & { readonly out: string }): Promise<void> {
  await checkPaths([{ flag: '--out', path: out, expected: 'is new' }]);
  const exported = await withProgress(quiet, (options) => writeMasks(resolveLocation(directory), resolve(out), options));
  writeResult(json, { ...exported, projections: exported.projections.map(summaryToJson) }, () => formatExported(exported));
}

/** Writes a copy of a checkpoint with the masked weights set to zero. */
export async function applyMasks({
  model,
  masks,
  out,
  json,
  quiet,
}: MaskOptions & { readonly model: string; readonly masks: string; readonly out: string }): Promise<void> {
  await checkPaths([
    { flag: '--model', path: model, expected: 'exists' },
    { flag: '--masks', path: masks, expected: 'exists' },
    { flag: '--out', path: out, expected: 'is new' },
  ]);
  const applied = await withProgress(quiet, (options) =>
    writeMasked(resolveLocation(model), resolveLocation(masks), resolve(out), options),
  );
  const { projections, untouched } = applied;
  writeResult(json, { ...applied, projections: projections.map(summaryToJson), untouched: untouched.map(withoutWeight) }, () =>
    formatApplied(applied),
  );
}

/** Compares two sets of masks. */
export async function diffMasks(a: string, b: string, { json, quiet }: MaskOptions): Promise<void> {
  const comparison = await withProgress(quiet, (options) => compareMasks(resolve(a), resolve(b), options));
  if (comparison.projections.length === 0) {
    throw new SecateurError('FAILED_PRECONDITION', `${a} and ${b} have no projection in common; are they of the same model?`);
  }
  writeResult(json, comparisonToJson(comparison), () => formatComparison(comparison));
}

interface WorkOptions {
  readonly signal: AbortSignal;
  readonly onProgress: (doneBytes: number, totalBytes: number) => void;
}

async function withProgress<Result>(quiet: boolean | undefined, work: (options: WorkOptions) => Promise<Result>): Promise<Result> {
  const progress = createByteProgress(quiet === true);
  try {
    return await withInterruption((signal) =>
      work({ signal, onProgress: (doneBytes, totalBytes) => progress.onProgress(doneBytes, totalBytes) }),
    );
  } finally {
    progress.stop();
  }
}

function summaryToJson({ name, ...counts }: MaskSummary): object {
  return { name: withoutWeight(name), ...counts };
}

function formatExported({ file, projections, weights, dropped }: ExportedMasks): string {
  return `${formatShare(dropped / weights)} (${formatCount(dropped)}) of ${formatCount(weights)} weights in ${projections.length} projections are exactly zero: ${file}\n`;
}

function formatApplied({ output, projections, weights, dropped, untouched }: AppliedMasks): string {
  const share = weights === 0 ? 0 : dropped / weights;
  const lines = [
    `${formatShare(share)} (${formatCount(dropped)}) of ${formatCount(weights)} weights in ${projections.length} of ${projections.length + untouched.length} projections were dropped: ${output}`,
    ...listNames('Without a mask, and untouched', untouched),
  ];
  return `${lines.join('\n')}\n`;
}

function comparisonToJson({ a, b, projections, onlyInA, onlyInB, ...totals }: MaskComparison): object {
  return {
    a,
    b,
    ...totals,
    projections: projections.map(({ name, ...overlap }) => ({ name: withoutWeight(name), ...overlap })),
    onlyInA: onlyInA.map(withoutWeight),
    onlyInB: onlyInB.map(withoutWeight),
  };
}

function formatComparison({ a, b, projections, onlyInA, onlyInB, ...totals }: MaskComparison): string {
  const table = new Table({
    head: ['projection', 'dropped in A', 'in B', 'in both', 'agreement'],
    colAligns: ['left', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [], compact: true },
  });
  for (const { name, ...overlap } of projections) table.push([withoutWeight(name), ...formatOverlap(overlap)]);
  table.push([`all ${projections.length}`, ...formatOverlap(totals)]);
  const lines = [
    table.toString(),
    `A: ${a}`,
    `B: ${b}`,
    ...listNames('Only in A', onlyInA),
    ...listNames('Only in B', onlyInB),
    'Agreement: of the weights that either drops, the share that both drop.',
  ];
  return `${lines.join('\n')}\n`;
}

function formatOverlap({ droppedInA, droppedInB, droppedInBoth, agreement }: MaskOverlap): string[] {
  return [...[droppedInA, droppedInB, droppedInBoth].map((count) => formatCount(count)), formatShare(agreement)];
}

function listNames(title: string, names: readonly string[]): string[] {
  return names.length === 0 ? [] : [`${title}: ${names.map(withoutWeight).join(', ')}`];
}

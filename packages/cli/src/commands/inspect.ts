import { resolve } from 'node:path';
import { inspectCheckpoint, type CheckpointSummary } from '@secateur/checkpoint';
import Table from 'cli-table3';
import { formatCount, formatShare } from '../output/format.js';
import { writeResult } from '../output/write-result.js';

export async function inspect(directory: string, { json }: { readonly json: boolean }): Promise<void> {
  const summary = await inspectCheckpoint(resolve(directory));
  writeResult(json, summary, () => formatInspection(summary));
}

function formatInspection({ directory, projections, weights, zeros, sparsity }: CheckpointSummary): string {
  const table = new Table({
    head: ['projection', 'shape', 'zero', 'dead rows', 'dead columns', 'NaN', 'infinite'],
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [], compact: true },
  });
  for (const { name, rows, columns, zeros: zeroWeights, deadRows, deadColumns, nans, infinities } of projections) {
    table.push([
      name.replace(/\.weight$/, ''),
      `${rows} x ${columns}`,
      formatShare(zeroWeights / (rows * columns)),
      deadRows,
      deadColumns,
      nans,
      infinities,
    ]);
  }
  return `${table.toString()}\n${formatShare(sparsity)} (${formatCount(zeros)}) of ${formatCount(weights)} weights are exactly zero: ${directory}\n`;
}

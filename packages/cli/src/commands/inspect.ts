import { resolve } from 'node:path';
import { inspectCheckpoint, type CheckpointSummary } from '@secateur/checkpoint';
import { architectureToWords, dataTypeWord } from '../output/words.js';
import Table from 'cli-table3';
import { formatCount, formatShare } from '../output/format.js';
import { writeResult } from '../output/write-result.js';

export async function inspect(directory: string, { json }: { readonly json?: boolean }): Promise<void> {
  const summary = await inspectCheckpoint(resolve(directory));
  writeResult(json, inspectionToJson(summary), () => formatInspection(summary));
}

/** With words instead of enum numbers, and projections named as in secateur.json. */
function inspectionToJson({ architecture, projections, ...rest }: CheckpointSummary): object {
  return {
    ...rest,
    architecture: architectureToWords(architecture),
    projections: projections.map(({ name, dataType, ...projection }) => ({
      name: withoutWeight(name),
      dataType: dataTypeWord(dataType),
      ...projection,
    })),
  };
}

function withoutWeight(name: string): string {
  return name.replace(/\.weight$/, '');
}

function formatInspection({ directory, projections, weights, zeros, sparsity }: CheckpointSummary): string {
  const table = new Table({
    head: ['projection', 'shape', 'zero', 'dead rows', 'dead columns', 'NaN', 'infinite'],
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [], compact: true },
  });
  for (const { name, rows, columns, zeros: zeroWeights, deadRows, deadColumns, nans, infinities } of projections) {
    table.push([
      withoutWeight(name),
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

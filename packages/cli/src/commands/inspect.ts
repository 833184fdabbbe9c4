import { inspectCheckpoint, resolveLocation, type BlockSummary, type CheckpointSummary } from '@secateur/checkpoint';
import { architectureToWords, dataTypeWord } from '../output/words.js';
import Table from 'cli-table3';
import { formatCount, formatShare, withoutWeight } from '../output/format.js';
import { writeResult } from '../output/write-result.js';

export async function inspect(directory: string, { json }: { readonly json?: boolean }): Promise<void> {
  const summary = await inspectCheckpoint(resolveLocation(directory));
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

function formatInspection({ directory, projections, blocks, weights, zeros, sparsity }: CheckpointSummary): string {
  const found = ['zeros', 'zero', 'N:M', 'dead rows', 'dead columns', 'NaN', 'infinite'];
  const lines = [
    formatTable(
      ['projection', 'shape', ...found],
      projections.map((projection) => [
        withoutWeight(projection.name),
        `${projection.rows} x ${projection.columns}`,
        ...formatFound({ ...projection, sparsity: projection.zeros / (projection.rows * projection.columns) }),
      ]),
    ),
    formatTable(
      ['layer', 'weights', ...found],
      blocks.map((block) => [String(block.block + 1), formatCount(block.weights), ...formatFound(block)]),
    ),
    `${formatShare(sparsity)} (${formatCount(zeros)}) of ${formatCount(weights)} weights are exactly zero: ${directory}`,
  ];
  return `${lines.join('\n')}\n`;
}

function formatTable(head: string[], rows: readonly string[][]): string {
  const colAligns = head.map((_, column) => (column === 0 ? ('left' as const) : ('right' as const)));
  const table = new Table({ head, colAligns, style: { head: [], border: [], compact: true } });
  table.push(...rows);
  return table.toString();
}

type Found = Pick<BlockSummary, 'zeros' | 'sparsity' | 'patterns' | 'deadRows' | 'deadColumns' | 'nans' | 'infinities'>;

function formatFound({ zeros, sparsity, patterns, deadRows, deadColumns, nans, infinities }: Found): string[] {
  return [
    formatCount(zeros),
    formatShare(sparsity),
    patterns.join(', '),
    ...[deadRows, deadColumns, nans, infinities].map((count) => formatCount(count)),
  ];
}

import type { EvaluateReport, PruneReport } from '@secateur/proto/pruning_service';
import type { ProjectionReport } from '@secateur/proto/job';
import Table from 'cli-table3';
import pc from 'picocolors';
import { formatCount, formatSeconds, formatShare, summarizeProjections } from './format.js';

/** What a prune job did, for people. */
export function formatPruneReport(report: PruneReport): string {
  const table = new Table({
    head: ['layer', 'zero', 'quality uniform', 'quality now', 'time'],
    colAligns: ['right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [], compact: true },
  });
  const layers = groupByLayer(report.projections, report.layerSeconds.length);
  for (const [layer, projections] of layers.entries()) {
    const { sparsity, before, after } = summarizeProjections(projections);
    table.push([
      String(layer + 1),
      formatShare(sparsity),
      before.toFixed(4),
      after.toFixed(4),
      formatSeconds(report.layerSeconds[layer] ?? 0),
    ]);
  }
  const weights = report.projections.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
  const improved = report.projections.filter(({ record }) => record?.learningRate !== undefined).length;
  const steps = Object.entries(report.seconds)
    .filter(([step]) => step !== 'total')
    .map(([step, seconds]) => `${step} ${formatSeconds(seconds)}`);
  const lines = [
    table.toString(),
    `${pc.bold(formatShare(report.actualSparsity))} of ${formatCount(weights)} weights are zero (asked for: ${formatShare(report.targetSparsity)}).`,
    `Rows differ in ${improved} of ${report.projections.length} projections; in the others uniform rows were best.`,
    `${formatSeconds(report.seconds['total'] ?? 0)} on ${report.nodes.map(({ name, lost }) => (lost === '' ? name : `${name} (lost)`)).join(', ')}: ${steps.join(', ')}.`,
    `Written to ${pc.bold(report.output)}: the checkpoint, secateur.json, masks.safetensors, row_sparsities.safetensors.`,
  ];
  return `${lines.join('\n')}\n`;
}

/** What a perplexity measurement found, for people. */
export function formatEvaluateReport({ model, perplexity, windows, sequenceLength, seconds }: EvaluateReport): string {
  return `${pc.bold(`perplexity ${perplexity.toFixed(4)}`)} over ${windows} windows of ${sequenceLength} tokens, ${formatSeconds(seconds)}: ${model}\n`;
}

/** Projections come in network order, the same number for each layer. */
function groupByLayer(projections: readonly ProjectionReport[], layers: number): ProjectionReport[][] {
  const perLayer = projections.length / layers;
  return Array.from({ length: layers }, (_, layer) => projections.slice(layer * perLayer, (layer + 1) * perLayer));
}

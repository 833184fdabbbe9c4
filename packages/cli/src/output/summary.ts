import { findTask, layerOfProjection } from '@secateur/core';
import type { Accuracy, EvaluateReport, PerplexityChange, PruneReport, TaskReport } from '@secateur/proto/pruning_service';
import { LayerBudget, type ProjectionReport } from '@secateur/proto/job';
import Table from 'cli-table3';
import pc from 'picocolors';
import { formatCount, formatQuality, formatSeconds, formatShare, summarizeProjections } from './format.js';

/** What a prune job did, for people. */
export function formatPruneReport(report: PruneReport): string {
  const errors = report.projections.length === 0 ? undefined : summarizeProjections(report.projections).errors;
  const compared = errors === undefined ? ['quality uniform', 'quality now'] : ['error, mask alone', 'error now'];
  const table = new Table({
    head: ['layer', 'zero', ...compared, 'time'],
    colAligns: ['right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [], compact: true },
  });
  for (const [layer, seconds] of report.layerSeconds.entries()) {
    const projections = report.projections.filter(({ name }) => layerOfProjection(name) === layer);
    table.push([String(layer + 1), ...layerCells(projections), formatSeconds(seconds)]);
  }
  const steps = Object.entries(report.seconds)
    .filter(([step]) => step !== 'total')
    .map(([step, seconds]) => `${step} ${formatSeconds(seconds)}`);
  const isUniform = (report.config?.layerBudget ?? LayerBudget.UNIFORM) === LayerBudget.UNIFORM;
  const layerBudget = isUniform ? '' : ', layer_budget.json';
  const lines = [
    table.toString(),
    formatSparsity(report),
    ...(report.perplexity === undefined ? [] : [formatPerplexity(report.perplexity)]),
    errors === undefined ? formatRows(report) : formatErrors(errors),
    ...formatDampingWarning(report),
    `${formatSeconds(report.seconds['total'] ?? 0)} on ${report.nodes.map(({ name, lost }) => (lost === '' ? name : `${name} (lost)`)).join(', ')}: ${steps.join(', ')}.`,
    `Written to ${pc.bold(report.output)}: the checkpoint, secateur.json, masks.safetensors, row_sparsities.safetensors${layerBudget}.`,
  ];
  return `${lines.join('\n')}\n`;
}

/** What a measurement found, for people. */
export function formatEvaluateReport(report: EvaluateReport): string {
  const { model, perplexity, windows, sequenceLength, stride, tasks, seconds } = report;
  const steps = stride === sequenceLength ? '' : `, ${stride} apart`;
  const lines = [
    ...(windows === 0
      ? []
      : [`${pc.bold(`perplexity ${perplexity.toFixed(4)}`)} over ${windows} windows of ${sequenceLength} tokens${steps}`]),
    ...(tasks.length === 0 ? [] : [formatTasks(tasks)]),
    `${formatSeconds(seconds)}: ${model}`,
  ];
  return `${lines.join('\n')}\n`;
}

function formatTasks(tasks: readonly TaskReport[]): string {
  const table = new Table({
    head: ['task', 'questions', 'acc', 'acc_norm'],
    colAligns: ['left', 'right', 'right', 'right'],
    style: { head: [], border: [], compact: true },
  });
  for (const { task, questions, accuracy, normalizedAccuracy } of tasks) {
    table.push([findTask(task).name, questions, formatAccuracy(accuracy), formatAccuracy(normalizedAccuracy)]);
  }
  return table.toString();
}

function formatAccuracy(accuracy: Accuracy | undefined): string {
  return accuracy === undefined ? '' : `${formatShare(accuracy.value)} ± ${formatShare(accuracy.standardError)}`;
}

function formatPerplexity({ dense, pruned }: PerplexityChange): string {
  return `Perplexity ${dense.toFixed(4)} before, ${pc.bold(pruned.toFixed(4))} now.`;
}

function layerCells(projections: readonly ProjectionReport[]): string[] {
  if (projections.length === 0) return ['left out', '-', '-'];
  const { sparsity, before, after, errors } = summarizeProjections(projections);
  const compared =
    errors === undefined ? [formatQuality(before), formatQuality(after)] : [formatShare(errors.before), formatShare(errors.after)];
  return [formatShare(sparsity), ...compared];
}

function formatRows({ projections }: PruneReport): string {
  const improved = projections.filter(({ record }) => record?.bestQuality !== record?.baselineQuality).length;
  return `Rows differ in ${improved} of ${projections.length} projections; in the others uniform rows were best.`;
}

function formatErrors({ before, after }: { readonly before: number; readonly after: number }): string {
  return `Squared error of the projections' outputs over the calibration tokens, on average: ${formatShare(before)} with the mask alone, ${formatShare(after)} now.`;
}

/** What a matrix needs to have a factor is raised until it has one. */
function formatDampingWarning({ projections, config }: PruneReport): string[] {
  const asked = config?.repair?.damping ?? 0;
  const raised = projections.filter(({ repair }) => repair !== undefined && repair.damping > asked * 1.5);
  const [first] = raised;
  if (first === undefined) return [];
  const most = Math.max(...raised.map(({ repair }) => repair!.damping));
  const others = raised.length === 1 ? '' : ` and ${raised.length - 1} more`;
  return [
    pc.yellow(
      `Warning: the Gram matrix of ${first.name}${others} has no factor with ${asked} of its mean diagonal added, so up to ${most} was (--repair-damping). Calibrate with more samples.`,
    ),
  ];
}

/** Shares are of the weights of all projections, of which only those that were pruned are in the report. */
function formatSparsity({ projections, skipped, actualSparsity, targetSparsity }: PruneReport): string {
  const weights = projections.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
  const all = skipped.length === 0 ? `${formatCount(weights)} weights` : 'the weights of all projections';
  const leftOut = skipped.length === 0 ? '' : ` ${skipped.length} of ${projections.length + skipped.length} projections were left out.`;
  return `${pc.bold(formatShare(actualSparsity))} of ${all} are zero (asked for: ${formatShare(targetSparsity)}).${leftOut}`;
}

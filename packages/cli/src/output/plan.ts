import { LayerBudget } from '@secateur/proto/job';
import type { JobPlan, NodePlan } from '@secateur/proto/plan';
import Table from 'cli-table3';
import pc from 'picocolors';
import { formatBytes, formatCount, formatFlops, formatSeconds, formatShare } from './format.js';

const STYLE = { style: { head: [], border: [], compact: true } };

/** What a job would do, for people. */
export function formatJobPlan(plan: JobPlan): string {
  const { samples, sequenceLength, groups, nodes, flops } = plan;
  const steps = Object.entries(flops).map(([step, count]) => `${step} ${formatFlops(count)}`);
  const lines = [
    shardTable(plan),
    ...projectionTable(plan),
    ...formatBudget(plan),
    `${formatCount(plan.parameters)} parameters${plan.fromConfigAlone ? ', by config.json alone: the folder has no weights' : ''}.`,
    `${formatCount(plan.weights)} weights in projections, ${samples} samples of ${sequenceLength} tokens in ${groups} groups.`,
    `Matrix products: ${steps.join(', ')}.`,
    ...(plan.estimatedSeconds === 0 ? [] : [`Time: about ${formatSeconds(plan.estimatedSeconds)}, by how fast the nodes multiply.`]),
    '',
    ...nodes.flatMap(formatNode),
  ];
  return `${lines.join('\n')}\n`;
}

/** What is to be known about the shares, where those that are shown are not what each layer will drop. */
function formatBudget({ layerBudget }: JobPlan): string[] {
  const computed = {
    [LayerBudget.OWL as number]: 'the outliers of its scores (owl)',
    [LayerBudget.ALPHA as number]: 'the spectra of its weights (alpha)',
    [LayerBudget.OPTIMAL as number]: 'what it loses when its projections are pruned one at a time (optimal)',
  }[layerBudget];
  if (computed === undefined) return [];
  return [`What each layer drops is computed from the model when the job runs, by ${computed}; shown is what it is on average.`];
}

/** One line for a run of shards that are alike. */
function shardTable({ shards }: JobPlan): string {
  const table = new Table({
    head: ['shard', 'stored', 'weights', 'to drop'],
    colAligns: ['left', 'right', 'right', 'right'],
    ...STYLE,
  });
  for (let first = 0; first < shards.length;) {
    const shard = shards[first]!;
    const alike = shards.findIndex(
      (other, index) =>
        index > first && (other.bytes !== shard.bytes || other.weights !== shard.weights || other.sparsity !== shard.sparsity),
    );
    const end = alike === -1 ? shards.length : alike;
    const name = end - first > 1 ? `${shard.id} … ${shards[end - 1]!.id}` : shard.id;
    const each = end - first > 1 ? ' each' : '';
    table.push([
      name,
      `${formatBytes(shard.bytes)}${each}`,
      shard.weights === 0 ? '' : `${formatCount(shard.weights)}${each}`,
      shard.weights === 0 ? '' : formatShare(shard.sparsity),
    ]);
    first = end;
  }
  return table.toString();
}

/** What projections of each kind drop, where they do not all drop the same: one line for the blocks that are alike. */
function projectionTable({ shards }: JobPlan): string[] {
  const projections = shards.flatMap(({ projections }) => projections);
  if (new Set(projections.map(({ target }) => target)).size < 2) return [];
  const table = new Table({ head: ['projection', 'blocks', 'to drop'], colAligns: ['left', 'left', 'right'], ...STYLE });
  const rows = new Map<string, { readonly kind: string; readonly target: number; readonly layers: number[] }>();
  for (const { name, target } of projections) {
    const [, layer = '', kind = name] = /\.(\d+)\.(.+)$/.exec(name) ?? [];
    const key = `${kind} ${target}`;
    const row = rows.get(key) ?? { kind, target, layers: [] };
    row.layers.push(Number(layer));
    rows.set(key, row);
  }
  for (const { kind, target, layers } of rows.values()) {
    table.push([kind, formatRanges(layers), target === 0 ? 'left out' : formatShare(target)]);
  }
  return [table.toString()];
}

/** `0-3, 7` of ascending numbers. */
function formatRanges(numbers: readonly number[]): string {
  const ranges: [number, number][] = [];
  for (const number of numbers) {
    const last = ranges.at(-1);
    if (last !== undefined && number === last[1] + 1) last[1] = number;
    else ranges.push([number, number]);
  }
  return ranges.map(([first, last]) => (first === last ? String(first) : `${first}-${last}`)).join(', ');
}

function formatNode({ address, name, groups, memory, fits, reason }: NodePlan): string[] {
  const title = pc.bold(`${name} (${address})`);
  if (reason !== '') return [`${title} cannot take the job: ${reason}`];
  if (memory === undefined) return [`${title} has nothing to do.`];
  const table = new Table({ head: [`memory at the step ${memory.step}`, ''], colAligns: ['left', 'right'], ...STYLE });
  for (const { purpose, bytes } of memory.engine) table.push([purpose, formatBytes(bytes)]);
  table.push(['sum, of the memory budget', formatBytes(memory.engineBytes)]);
  for (const { purpose, bytes } of memory.process) table.push([purpose, formatBytes(bytes)]);
  table.push(['resident memory of the process', formatBytes(memory.residentBytes)]);
  const verdict = fits
    ? `It fits: ${formatBytes(memory.availableBytes)} are free.`
    : pc.red(
        `It does not fit: ${formatBytes(memory.availableBytes)} are free. Use more nodes or fewer samples, or nodes with a larger --memory (secateur node).`,
      );
  return [`${title}: ${groups} ${groups === 1 ? 'group' : 'groups'}`, table.toString(), verdict];
}

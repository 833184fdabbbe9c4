import type { JobPlan, NodePlan } from '@secateur/proto/plan';
import Table from 'cli-table3';
import pc from 'picocolors';
import { formatBytes, formatCount, formatFlops, formatShare } from './format.js';

const STYLE = { style: { head: [], border: [], compact: true } };

/** What a job would do, for people. */
export function formatJobPlan(plan: JobPlan): string {
  const { samples, sequenceLength, groups, nodes, flops } = plan;
  const steps = Object.entries(flops).map(([step, count]) => `${step} ${formatFlops(count)}`);
  const lines = [
    shardTable(plan),
    `${formatCount(plan.weights)} weights in projections, ${samples} samples of ${sequenceLength} tokens in ${groups} groups.`,
    `Matrix products: ${steps.join(', ')}.`,
    '',
    ...nodes.flatMap(formatNode),
  ];
  return `${lines.join('\n')}\n`;
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
    const alike = shards.findIndex((other, index) => index > first && (other.bytes !== shard.bytes || other.weights !== shard.weights));
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
    : pc.red(`It does not fit: ${formatBytes(memory.availableBytes)} are free. Use more nodes, fewer samples or a larger --memory.`);
  return [`${title}: ${groups} ${groups === 1 ? 'group' : 'groups'}`, table.toString(), verdict];
}

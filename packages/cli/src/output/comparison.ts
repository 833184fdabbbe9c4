import type { RunComparison, SideBySide } from '@secateur/core';
import Table from 'cli-table3';
import pc from 'picocolors';
import { formatQuality, formatSeconds, formatShare } from './format.js';

const STYLE = { style: { head: [], border: [], compact: true } };

/** Two prune runs side by side, for people. */
export function formatComparison({ output, sparsity, perplexity, options, layers, seconds }: RunComparison): string {
  const runs = new Table({ head: ['', 'A', 'B'], colAligns: ['left', 'right', 'right'], ...STYLE });
  const add = <Value>(name: string, { a, b }: SideBySide<Value>, format: (value: Value) => string): void => {
    if (a !== null || b !== null) runs.push([name, ...[a, b].map((value) => (value === null ? '-' : format(value)))]);
  };
  add('sparsity asked for', sparsity, ({ target }) => formatShare(target));
  add('sparsity reached', sparsity, ({ actual }) => formatShare(actual));
  add('perplexity before', perplexity, ({ dense }) => dense.toFixed(4));
  add('perplexity now', perplexity, ({ pruned }) => pruned.toFixed(4));
  for (const { name, a, b } of options) {
    if (name !== 'sparsity') add(name, { a, b }, (value) => (typeof value === 'string' ? value : JSON.stringify(value)));
  }
  for (const [step, each] of Object.entries(seconds)) add(`time: ${step}`, each, formatSeconds);

  const perLayer = new Table({
    head: ['layer', 'zero A', 'zero B', 'quality A', 'quality B', 'time A', 'time B'],
    colAligns: ['right', 'right', 'right', 'right', 'right', 'right', 'right'],
    ...STYLE,
  });
  for (const [layer, { a, b }] of layers.entries()) {
    const cells = <Value>(format: (summary: NonNullable<typeof a>) => Value): (Value | string)[] =>
      [a, b].map((summary) => (summary === null ? '-' : format(summary)));
    perLayer.push([
      String(layer + 1),
      ...cells((summary) => formatShare(summary.sparsity)),
      ...cells((summary) => formatQuality(summary.quality)),
      ...cells((summary) => formatSeconds(summary.seconds)),
    ]);
  }
  return `${[`${pc.bold('A')} ${output.a ?? ''}`, `${pc.bold('B')} ${output.b ?? ''}`, runs.toString(), perLayer.toString()].join('\n')}\n`;
}

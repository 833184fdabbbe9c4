import {
  ATTRIBUTES,
  COUNTERS,
  ENGINE_SPANS,
  EVENTS,
  GAUGES,
  HISTOGRAMS,
  SPANS,
  type RegisteredMetric,
  type RegisteredName,
} from './names.js';

/** The reference page of all names, as Markdown. */
export function renderReference(): string {
  return `# Names in traces and metrics

<!-- Made from packages/telemetry/src/names.ts by packages/telemetry/scripts/write-reference.mjs; do not edit. -->

Calls between processes have spans of their own, named after the method (\`secateur.v1.KernelService/Propagate\`), with the attributes of
OpenTelemetry's [RPC conventions](https://opentelemetry.io/docs/specs/semconv/rpc/).

## Spans

${renderTable(SPANS)}

## Phases of the engine

Spans below the call that ran them, with the attributes \`secateur.engine.*\`.

${renderTable(ENGINE_SPANS)}

## Attributes

${renderTable(ATTRIBUTES)}

## Events

${renderTable(EVENTS)}

## Metrics

Of processes with \`--http-listen\`, at \`/metrics\`, where dots are underscores and \`_total\` stands behind names of what only grows.

${renderMetrics({ ...GAUGES, ...COUNTERS, ...HISTOGRAMS })}
`;
}

function renderTable(table: Readonly<Record<string, RegisteredName>>): string {
  return renderRows([['Name', 'Meaning'], ...Object.values(table).map(({ name, description }) => [`\`${name}\``, description])]);
}

function renderMetrics(table: Readonly<Record<string, RegisteredMetric>>): string {
  const code = (text: string): string => `\`${text}\``;
  const rows = Object.values(table).map(({ name, unit, attributes, description }) => {
    return [code(name), code(unit), attributes.map(code).join(', '), description];
  });
  return renderRows([['Name', 'Unit', 'Split by', 'Meaning'], ...rows]);
}

/** A table whose first row is its head. */
function renderRows(rows: readonly (readonly string[])[]): string {
  const [head = [], ...body] = rows;
  const widths = head.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]): string => `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...body.map(line)].join('\n');
}

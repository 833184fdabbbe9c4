import { ATTRIBUTES, ENGINE_SPANS, EVENTS, SPANS, type RegisteredName } from './names.js';

/** The reference page of all names, as Markdown. */
export function renderReference(): string {
  return `# Names in traces

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
`;
}

function renderTable(table: Readonly<Record<string, RegisteredName>>): string {
  const rows = Object.values(table).map(({ name, description }) => [`\`${name}\``, description] as const);
  const width = (column: 0 | 1): number =>
    Math.max(...rows.map((row) => row[column].length), column === 0 ? 'Name'.length : 'Meaning'.length);
  const line = (name: string, description: string): string => `| ${name.padEnd(width(0))} | ${description.padEnd(width(1))} |`;
  return [line('Name', 'Meaning'), line('-'.repeat(width(0)), '-'.repeat(width(1))), ...rows.map((row) => line(...row))].join('\n');
}

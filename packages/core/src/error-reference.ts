import { ERROR_CATALOGUE } from './errors.js';

const HEADINGS = ['Reason', 'gRPC status', 'Trying again can help', 'Meaning'];

/** The reference page of all errors, as Markdown. */
export function renderErrorReference(): string {
  const rows = Object.entries(ERROR_CATALOGUE).map(([reason, { status, retryable, description }]) => [
    `\`${reason}\``,
    `\`${status}\``,
    retryable ? 'yes' : 'no',
    description,
  ]);
  return `# Errors

<!-- Made from packages/core/src/errors.ts by packages/core/scripts/write-error-reference.mjs; do not edit. -->

Every failed call ends with a gRPC status and a \`google.rpc.Status\` in \`grpc-status-details-bin\`. Its \`google.rpc.ErrorInfo\` has the domain
\`secateur.dev\`, one of the reasons below and metadata for programs; a request with wrong fields adds a \`google.rpc.BadRequest\` that names each.
A job that failed keeps the same \`google.rpc.Status\` as its error.

${renderTable([HEADINGS, ...rows])}
`;
}

function renderTable(rows: readonly (readonly string[])[]): string {
  const widths = HEADINGS.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const [headings, ...body] = rows.map((row) => `| ${row.map((cell, column) => cell.padEnd(widths[column]!)).join(' | ')} |`);
  const rule = `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`;
  return [headings, rule, ...body].join('\n');
}

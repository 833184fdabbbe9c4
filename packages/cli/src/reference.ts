import { Help } from 'commander';
import { CheckedCommand } from './input/checked-command.js';
import { createProgram } from './program.js';

/** Every command and flag as Markdown. */
export function renderReference(): string {
  const lines = [
    '# The secateur command',
    '',
    'Made from the command line itself by `node packages/cli/scripts/write-reference.mjs`; `secateur <command> --help` says the same.',
    'Results go to stdout, progress and logs to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.',
    '',
    ...renderCommands(createProgram(''), 'secateur'),
  ];
  return lines.join('\n');
}

function renderCommands(parent: CheckedCommand, path: string): string[] {
  return parent.commands.filter((command) => command instanceof CheckedCommand).flatMap((command) => renderCommand(command, path));
}

function renderCommand(command: CheckedCommand, parents: string): string[] {
  const name = `${parents} ${command.name()}`;
  if (command.commands.length > 0) return renderCommands(command, name);
  const help = new Help();
  const lines = [
    `## ${name}`,
    '',
    command.description(),
    '',
    '```text',
    command.exampleText,
    '```',
    '',
    '| option | meaning |',
    '|---|---|',
  ];
  for (const argument of help.visibleArguments(command)) {
    lines.push(`| \`<${argument.name()}>\` | ${argument.description} |`);
  }
  for (const option of help.visibleOptions(command).filter(({ long }) => long !== '--help')) {
    lines.push(`| \`${option.flags}\` | ${help.optionDescription(option).replaceAll('|', '\\|')} |`);
  }
  return [...lines, ''];
}

import { Help, type Command } from 'commander';
import { createProgram } from './program.js';

/** Every command and flag as Markdown. */
export function renderReference(): string {
  const help = new Help();
  const lines = ['# The secateur command', '', 'Made from the command line itself; `secateur <command> --help` says the same.', ''];
  const visit = (command: Command, path: string): void => {
    const name = `${path} ${command.name()}`.trim();
    const usage = command.usage();
    if (command.commands.length === 0) {
      lines.push(`## ${name}`, '', command.description(), '', '```text', `${name} ${usage}`, '```', '');
      const options = help.visibleOptions(command).filter((option) => option.long !== '--help');
      if (options.length > 0) {
        lines.push('| option | meaning |', '|---|---|');
        for (const option of options) lines.push(`| \`${option.flags}\` | ${help.optionDescription(option).replaceAll('|', '\\|')} |`);
        lines.push('');
      }
    }
    for (const child of command.commands) visit(child, name);
  };
  for (const command of createProgram('').commands) visit(command, 'secateur');
  lines.push('Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.', '');
  return lines.join('\n');
}

import { spawn } from 'node:child_process';
import { workspaceRoot } from './workspace-root.mjs';

export class CommandError extends Error {
  /** @param {string} message @param {string} output what the command printed, when it was captured */
  constructor(message, output) {
    super(message);
    this.name = 'CommandError';
    this.output = output;
  }
}

/**
 * Runs a program without a shell. With `quiet` its output is returned instead of shown.
 * @param {string} program
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: Record<string, string>, quiet?: boolean }} [options]
 * @returns {Promise<{ code: number, output: string }>} code 127 when the program does not exist, 128 + n when signal n ended it
 */
export function runCommand(program, args, { cwd = workspaceRoot, env = {}, quiet = false } = {}) {
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', quiet ? 'pipe' : 'inherit', quiet ? 'pipe' : 'inherit'],
    });
    let output = '';
    const collect = (/** @type {string} */ text) => {
      output += text;
    };
    child.stdout?.setEncoding('utf8').on('data', collect);
    child.stderr?.setEncoding('utf8').on('data', collect);
    child.on('error', (error) => resolve({ code: 127, output: `${program}: ${error.message}` }));
    child.on('close', (code, signal) => resolve({ code: code ?? (signal === 'SIGINT' ? 130 : 143), output }));
  });
}

/**
 * Like {@link runCommand}, but throws a {@link CommandError} when the program fails.
 * @param {string} program
 * @param {readonly string[]} args
 * @param {Parameters<typeof runCommand>[2]} [options]
 */
export async function requireCommand(program, args, options) {
  const { code, output } = await runCommand(program, args, options);
  if (code !== 0) throw new CommandError(`${program} ${args.join(' ')} failed with exit code ${String(code)}.`, output);
  return output;
}

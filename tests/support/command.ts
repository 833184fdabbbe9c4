import { spawn } from 'node:child_process';
import { commandPath } from './paths.js';

export interface CommandResult {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs the real `secateur` command to its end. `onStderr` sees what it has written so far and may signal the process. `variables` are added
 * to its environment.
 */
export async function runCommand(
  args: readonly string[],
  onStderr: (soFar: string, signal: (name: NodeJS.Signals) => void) => void = () => undefined,
  variables: Readonly<Record<string, string>> = {},
): Promise<CommandResult> {
  const { NODE_OPTIONS: _jestOnly, ...inherited } = process.env;
  const environment = { ...inherited, ...variables };
  const child = spawn(process.execPath, [commandPath, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: environment });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    onStderr(stderr, (name) => child.kill(name));
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (exitCode) => {
      resolve({ exitCode, stdout, stderr });
    });
  });
}

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** The program that `secateur` starts. */
export const COMMAND = fileURLToPath(new URL('../bin/secateur.js', import.meta.url));

export interface Outcome {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the real command as a process until it ends. */
export function run(...args: string[]): Promise<Outcome> {
  const { NODE_OPTIONS: _jestOnly, ...environment } = process.env;
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [COMMAND, ...args], { env: environment }, (_error, stdout, stderr) => {
      resolve({ exitCode: child.exitCode, stdout, stderr });
    });
  });
}

// Runs the `secateur` command as a user does, and watches its processes.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { workspaceRoot } from '../scripts/lib/workspace-root.mjs';

const command = join(workspaceRoot, 'packages/cli/bin/secateur.js');

/** Peak resident MiB of the processes below one, by what they run. @param {number} pid @param {Map<string, number>} peaks */
function samplePeaks(pid, peaks) {
  for (const entry of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const status = readFileSync(`/proc/${entry}/status`, 'utf8');
      if (Number(entry) !== pid && !status.includes(`\nPPid:\t${pid}\n`)) continue;
      const args = readFileSync(`/proc/${entry}/cmdline`, 'utf8').split('\0');
      const role = args[2] === 'serve' ? 'orchestrator' : args[2] === 'node' ? 'kernel node' : 'command';
      const peak = Number(/VmHWM:\s*(\d+) kB/.exec(status)?.[1] ?? 0) / 1024;
      peaks.set(role, Math.max(peaks.get(role) ?? 0, peak));
    } catch {
      // The process ended while it was looked at.
    }
  }
}

/**
 * Seconds in all, and until the first line on stderr that begins with `awaited`.
 * @param {readonly string[]} args
 * @param {{ awaited?: string }} options
 * @returns {Promise<{ seconds: number, awaitedSeconds: number, output: string, peaks: Map<string, number> }>}
 */
export async function runSecateur(args, { awaited } = {}) {
  const started = performance.now();
  const secondsSoFar = () => (performance.now() - started) / 1000;
  const child = spawn(process.execPath, [command, ...args], { stdio: ['ignore', 'pipe', awaited === undefined ? 'inherit' : 'pipe'] });
  let output = '';
  child.stdout?.setEncoding('utf8').on('data', (text) => {
    output += text;
  });
  let awaitedSeconds = Number.NaN;
  let messages = '';
  child.stderr?.setEncoding('utf8').on('data', (text) => {
    messages += text;
    if (Number.isNaN(awaitedSeconds) && messages.includes(`\n${awaited ?? ''}`)) awaitedSeconds = secondsSoFar();
  });
  /** @type {Map<string, number>} */
  const peaks = new Map();
  const sampler = setInterval(() => samplePeaks(child.pid ?? 0, peaks), 50);
  const [code] = await once(child, 'close');
  clearInterval(sampler);
  if (code !== 0) throw new Error(`secateur ${args.join(' ')} failed\n${messages}`);
  return { seconds: secondsSoFar(), awaitedSeconds, output, peaks };
}

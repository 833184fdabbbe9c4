// What `npm run demo` shows: a small Qwen2 model pruned to 70 % by an orchestrator and two kernel nodes on this machine, and how much that
// costs in perplexity compared with pruning every row alike and with the preset `best`. Uses nothing but the public command.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const command = join(root, 'packages/cli/bin/secateur.js');
const model = join(root, 'examples/models/books-qwen2');
const calibration = join(root, 'examples/data/moby-dick-calibration.txt');
const evaluation = join(root, 'examples/data/moby-dick-evaluation.txt');
const pruned = join(root, 'out/books-qwen2-trim-70');
const trace = join(root, 'out/trace.json');

let stopRunning = () => false;

/**
 * Runs a command to its end and returns what it wrote to stdout.
 * @param {string} file
 * @param {readonly string[]} args
 * @param {{ show: boolean }} options `show`: let the user see stdout instead of returning it.
 */
async function run(file, args, { show }) {
  const child = spawn(process.execPath, [file, ...args], { stdio: ['ignore', show ? 'inherit' : 'pipe', 'inherit'] });
  stopRunning = () => child.kill('SIGTERM');
  let output = '';
  child.stdout?.setEncoding('utf8').on('data', (/** @type {string} */ text) => {
    output += text;
  });
  const [code] = /** @type {[number | null]} */ (await once(child, 'close'));
  if (code !== 0) throw new Error(`secateur ${args[0] ?? ''} failed.`);
  return output;
}

/** @type {import('node:child_process').ChildProcess[]} */
const services = [];

// Ctrl-C reaches the running command by itself; the demo only has to stay until it has cleaned up.
let interrupted = false;
process.on('SIGINT', () => {
  interrupted = true;
});
process.on('SIGTERM', () => {
  interrupted = true;
  stopRunning();
});

/**
 * Starts a service, which ends with this process, and returns the address it listens on.
 * @param {readonly string[]} args
 */
async function startService(args) {
  const child = spawn(process.execPath, [command, ...args, '--listen', '127.0.0.1:0', '--log-level', 'warn'], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  services.push(child);
  const [message] = /** @type {[{ address?: string } | number | null]} */ (
    await Promise.race([once(child, 'message'), once(child, 'exit')])
  );
  if (typeof message !== 'object' || message?.address === undefined) throw new Error(`secateur ${args[0] ?? ''} did not start.`);
  return message.address;
}

/**
 * @param {string} directory
 * @param {string} endpoint
 */
async function measurePerplexity(directory, endpoint) {
  const args = ['eval', '--model', directory, '--data', evaluation, '--seq-len', '256', '--endpoint', endpoint, '--json', '--quiet'];
  return /** @type {{ perplexity: number }} */ (JSON.parse(await run(command, args, { show: false }))).perplexity;
}

const scratch = await mkdtemp(join(tmpdir(), 'secateur-demo-'));
try {
  await run(join(root, 'scripts/make-example-text.mjs'), [], { show: true });
  await mkdir(join(root, 'out'), { recursive: true });
  for (const path of [pruned, `${pruned}.partial`, trace]) await rm(path, { recursive: true, force: true });

  console.log('Starting an orchestrator and two kernel nodes on this machine …');
  const nodes = await Promise.all(['node-0', 'node-1'].map((name) => startService(['node', '--name', name, '--threads', '1'])));
  const endpoint = await startService([
    'serve',
    ...nodes.flatMap((node) => ['--node', node]),
    '--root',
    root,
    '--root',
    scratch,
    '--state',
    'memory',
  ]);

  console.log('\nPruning books-qwen2 to 70 % with TRIM:');
  const data = ['--calibration', calibration, '--samples', '128', '--seq-len', '256', '--endpoint', endpoint];
  const prune = ['prune', '--model', model, '--sparsity', '0.7', ...data];
  await run(command, [...prune, '--out', pruned, '--trace-out', trace], { show: true });

  console.log('\nPruning it again with the same share in every row (uniform Wanda) and with --preset best, and measuring all four …');
  const uniform = join(scratch, 'uniform');
  const best = join(scratch, 'best');
  await run(command, [...prune, '--out', uniform, '--allocation', 'uniform', '--json', '--quiet'], { show: false });
  await run(command, [...prune, '--out', best, '--preset', 'best', '--json', '--quiet'], { show: false });
  console.log('\nPerplexity on chapters 91-135 of Moby Dick (lower is better):');
  for (const [name, directory] of [
    ['dense', model],
    ['70 % uniform Wanda', uniform],
    ['70 % TRIM', pruned],
    ['70 % preset best', best],
  ]) {
    console.log(`  ${String(name).padEnd(20)} ${(await measurePerplexity(String(directory), endpoint)).toFixed(2).padStart(8)}`);
  }
  console.log(
    `\nThe pruned model is in ${relative(root, pruned)}/; open ${relative(root, trace)} in https://ui.perfetto.dev to see where the time went.`,
  );
} catch (error) {
  if (!interrupted) console.error(error instanceof Error ? error.message : error);
  process.exitCode = interrupted ? 130 : 1;
} finally {
  for (const service of services) service.kill('SIGTERM');
  const alive = services.filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null);
  await Promise.all(alive.map((service) => once(service, 'exit')));
  await rm(scratch, { recursive: true, force: true });
}

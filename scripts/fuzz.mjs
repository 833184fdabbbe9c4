// Gives what reads files and requests inputs that are almost right:  npm run fuzz -- [TARGET …] [--seconds N] [--seed S]
// Without a target all take their turn. A finding is an input that is neither read nor refused by a SecateurError within the limits of time and
// memory; it is left in out/fuzz, and the exit code is 1.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { workspaceRoot } from './lib/workspace-root.mjs';

/** @typedef {{ inputs: number, seconds: number, refused: number, corpus: number, parts: number, slowestMs: number, findings: string[] }} Figures */

const findingsFolder = join(workspaceRoot, 'out', 'fuzz');
/** What reads an input must not need more. */
const heapMegabytes = 1024;

/** @param {readonly string[]} args @returns {Promise<{ end: string, output: string }>} */
async function runMain(args) {
  const nodeOptions = [`--max-old-space-size=${heapMegabytes}`, '--disable-warning=ExperimentalWarning'];
  const loader = ['--import', join(workspaceRoot, 'scripts', 'lib', 'typescript-loader.mjs')];
  const child = spawn(process.execPath, [...nodeOptions, ...loader, join(workspaceRoot, 'tests', 'fuzz', 'main.ts'), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (/** @type {string} */ text) => (output += text));
  const [code, signal] = /** @type {[number | null, string | null]} */ (await once(child, 'close'));
  return { end: signal ?? String(code), output };
}

/** @param {string} name @param {number} seconds @param {number} seed @returns {Promise<boolean>} whether nothing was found */
async function fuzzTarget(name, seconds, seed) {
  const { end, output } = await runMain([String(seconds), String(seed), findingsFolder, name]);
  const lastLine = output.trimEnd().split('\n').at(-1) ?? '';
  if (!lastLine.startsWith('{')) {
    console.log(`FAILED  ${name}: it ended with ${end}; the input is ${join(findingsFolder, `${name}-last`)}\n${output}`);
    return false;
  }
  const { findings, ...figures } = /** @type {Figures} */ (JSON.parse(lastLine));
  const { inputs, refused, corpus, parts, slowestMs } = figures;
  const found = parts === 0 ? '' : `, corpus ${corpus}, ${parts} parts of the code`;
  const verdict = findings.length === 0 ? 'passed' : 'FAILED';
  const sums = `${inputs} inputs in ${figures.seconds.toFixed(0)} s, ${refused} refused, the slowest in ${slowestMs.toFixed(0)} ms${found}`;
  console.log(`${verdict}  ${name}: ${sums}, ${findings.length} findings`);
  for (const finding of findings) console.log(finding);
  return findings.length === 0;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string', default: '1' } },
});
const [seconds, seed] = [Number(values.seconds), Number(values.seed)];
if (!(seconds >= 0) || !Number.isSafeInteger(seed)) throw new Error('Usage: npm run fuzz -- [TARGET …] [--seconds N] [--seed S]');
mkdirSync(findingsFolder, { recursive: true });
const names = positionals.length > 0 ? positionals : /** @type {string[]} */ (JSON.parse((await runMain([])).output));
for (const name of names) if (!(await fuzzTarget(name, seconds, seed))) process.exitCode = 1;

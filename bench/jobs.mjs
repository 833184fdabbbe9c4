// Whole jobs against what their matrix products alone would take at the library's peak; stages and bf16 against published settings, two nodes
// against one; and how soon a user sees something.
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { workspaceRoot } from '../scripts/lib/workspace-root.mjs';
import { measureForward } from './engine.mjs';
import { runSecateur } from './run-secateur.mjs';
import { HIDDEN_1024, writeSyntheticModel } from './synthetic-model.mjs';
import { markdownTable, median } from './table.mjs';

const ROUNDS = 5;
const THREADS = 2;

/** @typedef {{ name: string, shapes: string, model: string, data: string, samples: number, rounds: number }} Job */

/** Options of a job. @param {Job} job */
const settingsOf = ({ model, data, samples }) => [
  '--model',
  model,
  '--calibration',
  data,
  '--samples',
  String(samples),
  '--sparsity',
  '0.7',
];

/** @param {Job} job @returns {Promise<number>} floating-point operations of the dense products of all steps */
async function countProducts(job) {
  const { output } = await runSecateur(['plan', ...settingsOf(job), '--nodes', '1', '--json']);
  return Object.values(JSON.parse(output).flops).reduce((sum, count) => sum + count, 0);
}

/** Jobs that are compared run one after the other, so that both meet the same machine. @param {string} folder @param {readonly Job[]} jobs */
async function measureJobs(folder, jobs) {
  let outputs = 0;
  const prune = async (/** @type {Job} */ job, /** @type {readonly string[]} */ nodes, /** @type {readonly string[]} */ extra = []) => {
    const out = join(folder, `pruned-${outputs++}`);
    const { output } = await runSecateur(['prune', ...settingsOf(job), ...nodes, ...extra, '--out', out, '--json', '--quiet']);
    await rm(out, { recursive: true });
    return JSON.parse(output).timings.seconds;
  };
  const one = ['--nodes', '1', '--threads', String(THREADS)];
  const two = ['--nodes', '2', '--threads', String(THREADS / 2)];
  const forward = await measureForward();
  const rows = [];
  for (const job of jobs) {
    const shapes = forward.find((row) => row.case.startsWith(job.shapes) && row.threads === THREADS);
    if (shapes === undefined) throw new Error(`The forward benchmark has no ${job.shapes} with ${THREADS} threads.`);
    const atPeak = (await countProducts(job)) / 1e9 / shapes.gemmGflops;
    /** @type {Record<'seconds' | 'share' | 'staged' | 'bf16' | 'nodes', number[]>} */
    const measured = { seconds: [], share: [], staged: [], bf16: [], nodes: [] };
    for (let round = 0; round < job.rounds; round++) {
      const seconds = await prune(job, one);
      measured.seconds.push(seconds.total);
      measured.share.push(seconds.allocate / seconds.total);
      measured.staged.push(seconds.total / (await prune(job, one, ['--propagation', 'staged'])).total);
      if (shapes.bf16 > 0) measured.bf16.push(seconds.total / (await prune(job, one, ['--compute', 'bf16'])).total);
      measured.nodes.push((await prune(job, two)).total / seconds.total);
    }
    const seconds = median(measured.seconds);
    rows.push([
      job.name,
      seconds.toFixed(2),
      atPeak.toFixed(2),
      (seconds / atPeak).toFixed(2),
      `${median(measured.staged).toFixed(2)} x`,
      measured.bf16.length === 0 ? 'not here' : `${median(measured.bf16).toFixed(2)} x`,
      `${(100 * median(measured.share)).toFixed(1)} %`,
      `${median(measured.nodes).toFixed(2)} (${Math.min(...measured.nodes).toFixed(2)} … ${Math.max(...measured.nodes).toFixed(2)})`,
    ]);
  }
  return markdownTable(
    [
      'job',
      'seconds',
      'its products alone at peak',
      'times',
      'staged is faster',
      'bf16 is faster',
      'allocation',
      '2 nodes x 1 thread / 1 node x 2 threads',
    ],
    rows,
  );
}

/** Milliseconds from the import of the engine's package to an open engine. */
function measureEngineStart() {
  const entry = pathToFileURL(join(workspaceRoot, 'native/cuda/dist/index.js')).href;
  const script = `const begun = performance.now();
    const { openEngine } = await import('${entry}');
    const engine = openEngine({ backend: 'cpu', threads: 1, memoryBudgetBytes: 2 ** 30 });
    console.log(performance.now() - begun);
    await engine.close();`;
  return Number(spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' }).stdout);
}

/** @param {string} folder @param {Job} job */
async function measureStart(folder, job) {
  const first = [];
  const whole = [];
  const engine = [];
  for (let round = 0; round < ROUNDS; round++) {
    const out = ['--out', join(folder, `tiny-${round}`)];
    const { seconds, awaitedSeconds } = await runSecateur(['prune', ...settingsOf(job), ...out], { awaited: 'layer 1' });
    first.push(awaitedSeconds);
    whole.push(seconds);
    engine.push(measureEngineStart());
  }
  return markdownTable(
    ['what', 'median'],
    [
      ['first layer of a tiny job, from the start of the command', `${median(first).toFixed(2)} s`],
      ['the whole command', `${median(whole).toFixed(2)} s`],
      ['loading the addon and opening the engine', `${median(engine).toFixed(0)} ms`],
    ],
  );
}

/** @returns {Promise<Record<string, string>>} tables by name */
export async function benchJobs() {
  const folder = await mkdtemp(join(tmpdir(), 'secateur-bench-'));
  try {
    await writeSyntheticModel(folder, { ...HIDDEN_1024, samples: 128 });
    const books = {
      name: 'books-qwen2, 128 x 256 tokens',
      shapes: 'books-qwen2',
      model: join(workspaceRoot, 'examples/models/books-qwen2'),
      data: join(workspaceRoot, 'tests/fixtures/calibration/books-qwen2-calibration.safetensors'),
      samples: 128,
      rounds: ROUNDS,
    };
    const synthetic = { shapes: 'hidden 1024', model: folder, data: join(folder, 'ids.safetensors') };
    const few = { ...synthetic, name: 'hidden 1024, 4 layers, 16 x 512 tokens', samples: 16, rounds: ROUNDS };
    const many = { ...synthetic, name: 'hidden 1024, 4 layers, 128 x 512 tokens', samples: 128, rounds: 3 };
    return { jobs: await measureJobs(folder, [books, few, many]), start: await measureStart(folder, { ...books, samples: 8 }) };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

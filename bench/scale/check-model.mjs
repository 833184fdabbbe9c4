// Holds the simulator to real jobs of this machine: speeds come from one job on one node, and other jobs are predicted with them.
import { randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { workspaceRoot } from '../../scripts/lib/workspace-root.mjs';
import { runSecateur } from '../run-secateur.mjs';
import { HIDDEN_1024, writeSyntheticModel } from '../synthetic-model.mjs';
import { markdownTable } from '../table.mjs';
import { need } from './need.mjs';
import { simulateJob } from './simulate-job.mjs';

/** Rounds of all jobs; the least seconds of a step count, since what else runs on the machine makes steps longer only. */
const ROUNDS = 2;
const ROUNDS_OF_FITTING = 4;
const THREADS = 2;
const STEPS = ['collect', 'allocate', 'write', 'propagate'];
/** Of two processes on one machine nothing is known to be slower than the thread that sends. */
const LOOPBACK_BYTES_PER_SECOND = 10e9;
/** Converts to float32 (docs/performance.md, fetch). */
const LOADED_BYTES_PER_SECOND = 0.5e9;
const MASKED_BYTES_PER_SECOND = 1e9;
/** Searches rows (docs/performance.md, curves and search): a job of this size spends more on all the rest of an allocation. */
const WEIGHT_SAMPLES_PER_SECOND = 15e9;

/** @typedef {{ name: string, model: string, data: string, samples: number, sequenceLength: number }} CheckedJob */

/** Seconds of each step. @param {CheckedJob} job @param {number} nodes @param {string} folder @returns {Promise<Record<string, number>>} */
async function measureJob({ name, model, data }, nodes, folder) {
  const out = join(folder, `${name.replaceAll(/\W/g, '-')}-${nodes}-${randomUUID()}`);
  const sharing = ['--nodes', String(nodes), '--threads', String(THREADS / nodes)];
  const options = ['--model', model, '--calibration', data, '--sparsity', '0.7', '--out', out, ...sharing];
  return JSON.parse((await runSecateur(['prune', ...options, '--json', '--quiet'])).output).timings.seconds;
}

/** @param {CheckedJob} job @param {number} nodes @param {import('./cost-model.mjs').NodeSpeed} node @param {import('./cost-model.mjs').OrchestratorSpeed} orchestrator */
async function predictJob({ model, samples, sequenceLength }, nodes, node, orchestrator) {
  const config = JSON.parse(await readFile(join(model, 'config.json'), 'utf8'));
  return simulateJob({ config, samples, sequenceLength, nodes, node, orchestrator });
}

/** @param {string} step @param {Record<string, number>} seconds of each step */
function secondsOf(step, seconds) {
  return need(seconds[step], `time of ${step}`);
}

/** A node with a part of the processors of the one. @param {import('./cost-model.mjs').NodeSpeed} whole @param {number} nodes */
function shareOf(whole, nodes) {
  return { ...whole, ...Object.fromEntries(COMPUTED.map((speed) => [speed, whole[speed] / nodes])) };
}

const COMPUTED = /** @type {const} */ ([
  'productsPerSecond',
  'prunedProductsPerSecond',
  'sortedWeightsPerSecond',
  'weightSamplesPerSecond',
]);

/**
 * Predicted beside measured, and the node that this machine is.
 * @param {import('./cost-model.mjs').OrchestratorSpeed} orchestrator
 * @returns {Promise<{ table: string, node: import('./cost-model.mjs').NodeSpeed }>}
 */
export async function checkModel(orchestrator) {
  const folder = await mkdtemp(join(tmpdir(), 'secateur-bench-'));
  try {
    await writeSyntheticModel(folder, HIDDEN_1024);
    const synthetic = {
      name: 'hidden 1024, 4 layers, 16 x 512 tokens',
      model: folder,
      data: join(folder, 'ids.safetensors'),
      samples: 16,
      sequenceLength: 512,
    };
    const books = {
      name: 'books-qwen2, 128 x 256 tokens',
      model: join(workspaceRoot, 'examples/models/books-qwen2'),
      data: join(workspaceRoot, 'tests/fixtures/calibration/books-qwen2-calibration.safetensors'),
      samples: 128,
      sequenceLength: 256,
    };
    const local = { ...orchestrator, linkBytesPerSecond: LOOPBACK_BYTES_PER_SECOND };
    const cases = /** @type {[CheckedJob, number][]} */ ([
      [synthetic, 1],
      [synthetic, 2],
      [books, 1],
      [books, 2],
    ]);
    const jobs = cases.map(([job, nodes]) => ({ job, nodes, least: /** @type {Record<string, number>} */ ({}) }));
    for (let round = 0; round < ROUNDS; round++) {
      for (const { job, nodes, least } of jobs) {
        const seconds = await measureJob(job, nodes, folder);
        for (const step of STEPS) least[step] = Math.min(least[step] ?? Infinity, secondsOf(step, seconds));
      }
    }
    const [fitted, ...others] = jobs;
    const measured = need(fitted, 'job to fit to').least;
    // A first guess is simulated and corrected by what it is off.
    let node = {
      productsPerSecond: 1e11,
      prunedProductsPerSecond: 1e11,
      sortedWeightsPerSecond: 1e8,
      weightSamplesPerSecond: WEIGHT_SAMPLES_PER_SECOND,
      loadedBytesPerSecond: LOADED_BYTES_PER_SECOND,
      maskedBytesPerSecond: MASKED_BYTES_PER_SECOND,
      linkBytesPerSecond: LOOPBACK_BYTES_PER_SECOND,
      pulledBytesPerSecond: 1 / orchestrator.sendSeconds,
    };
    for (let round = 0; round < ROUNDS_OF_FITTING; round++) {
      const { seconds } = await predictJob(synthetic, 1, node, local);
      const off = (/** @type {string} */ step) => secondsOf(step, seconds) / secondsOf(step, measured);
      node = {
        ...node,
        productsPerSecond: node.productsPerSecond * off('collect'),
        prunedProductsPerSecond: node.prunedProductsPerSecond * off('propagate'),
        sortedWeightsPerSecond: node.sortedWeightsPerSecond * off('allocate'),
      };
    }
    const rows = [];
    for (const { job, nodes, least: real } of others) {
      const { seconds } = await predictJob(job, nodes, shareOf(node, nodes), local);
      const sum = (/** @type {Record<string, number>} */ parts) => STEPS.reduce((total, step) => total + (parts[step] ?? 0), 0);
      const cell = (/** @type {number} */ predicted, /** @type {number} */ was) =>
        `${predicted.toFixed(2)} / ${was.toFixed(2)} = ${(predicted / was).toFixed(2)}`;
      rows.push([job.name, nodes, ...STEPS.map((step) => cell(seconds[step] ?? 0, real[step] ?? 0)), cell(sum(seconds), sum(real))]);
    }
    const table = markdownTable(['job: predicted s / measured s', 'nodes', ...STEPS, 'together'], rows);
    return { table, node };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

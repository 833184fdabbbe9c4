// Perplexity of the sample models after pruning by every method, on text that nothing is calibrated with, with the seconds that pruning takes.
//   npm run bench:quality                          prints the tables
//   npm run bench:quality -- --write               also puts them into docs/quality.md
//   npm run bench:quality -- --models books-opt --sparsities 0.7,0.8 --methods TRIM,best
//   npm run bench:quality -- --results FILE        keeps what was measured there, line by line, and goes on from it
// A measurement is used again only for the same arguments; remove the file after the engine has changed.
import { appendFile, mkdtemp, readFile, rm } from 'node:fs/promises';
import { readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { workspaceRoot } from '../scripts/lib/workspace-root.mjs';
import { qualityTables } from './quality-tables.mjs';
import { runSecateur } from './run-secateur.mjs';
import { writeSection } from './write-section.mjs';

/** @typedef {import('./quality-tables.mjs').Measurement} Measurement */

const MODELS = ['books-qwen2', 'books-llama', 'books-opt'];
const SPARSITIES = ['0.6', '0.7', '0.8', '0.9'];
/** Where the steps on the way to `best` are looked at one by one. */
const SPARSITIES_OF_STEPS = ['0.7', '0.8'];
/** By name: the options, and whether the method is one of the steps, which are measured at fewer sparsities. */
const METHODS = {
  'uniform Wanda': { options: ['--allocation', 'uniform'] },
  TRIM: { options: [] },
  OWL: { options: ['--layer-budget', 'owl', '--allocation', 'uniform'] },
  // With the published 0.3, or 0.1 for Qwen, a projection would lose more than it has at 70 % or 90 %.
  AlphaPruning: { options: ['--layer-budget', 'alpha', '--alpha-epsilon', '0.05', '--allocation', 'uniform'] },
  SparseGPT: { options: ['--score', 'sparsegpt', '--allocation', 'uniform', '--propagation', 'staged'] },
  fast: { options: ['--preset', 'fast'] },
  best: { options: ['--preset', 'best'] },
  'TRIM, rows judged on all tokens': { step: true, options: ['--quality-inputs', 'all'] },
  'optimal rows': { step: true, options: ['--allocation', 'optimal'] },
  'optimal rows, all tokens': { step: true, options: ['--allocation', 'optimal', '--quality-inputs', 'all'] },
  'TRIM, staged': { step: true, options: ['--propagation', 'staged'] },
  'TRIM, optimal layer budget': { step: true, options: ['--layer-budget', 'optimal'] },
  'TRIM, swaps': { step: true, options: ['--swap'] },
  'TRIM, fit': { step: true, options: ['--repair', 'fit'] },
  'TRIM, swaps, fit': { step: true, options: ['--swap', '--repair', 'fit'] },
  'equal rows, fit': { step: true, options: ['--allocation', 'uniform', '--repair', 'fit'] },
  'optimal rows, all tokens, fit': { step: true, options: ['--allocation', 'optimal', '--quality-inputs', 'all', '--repair', 'fit'] },
  ADMM: { step: true, options: ['--allocation', 'uniform', '--repair', 'admm'] },
  'ADMM, dense targets': {
    step: true,
    options: ['--allocation', 'uniform', '--repair', 'admm', '--propagation', 'staged', '--repair-targets', 'dense'],
  },
  'TRIM, fit, dense targets': { step: true, options: ['--repair', 'fit', '--propagation', 'staged', '--repair-targets', 'dense'] },
  'best, own targets': { step: true, options: ['--preset', 'best', '--repair-targets', 'own'] },
  'best, own targets, staged': { step: true, options: ['--preset', 'best', '--repair-targets', 'own', '--propagation', 'staged'] },
  'ADMM, staged': { step: true, options: ['--allocation', 'uniform', '--repair', 'admm', '--propagation', 'staged'] },
};

const { values } = parseArgs({
  options: {
    models: { type: 'string', default: MODELS.join(',') },
    sparsities: { type: 'string', default: SPARSITIES.join(',') },
    methods: { type: 'string', default: Object.keys(METHODS).join(';') },
    results: { type: 'string' },
    write: { type: 'boolean', default: false },
  },
});

/** @param {string} model @param {'calibration' | 'eval'} use */
const tokensOf = (model, use) => join(workspaceRoot, 'tests/fixtures/calibration', `${model}-${use}.safetensors`);
/** @param {string} model */
const checkpointOf = (model) => join(workspaceRoot, 'examples/models', model);

/** @param {string} checkpoint @param {string} model */
async function perplexityOf(checkpoint, model) {
  const { output } = await runSecateur(['eval', '--model', checkpoint, '--data', tokensOf(model, 'eval'), '--json', '--quiet']);
  return JSON.parse(output).perplexity;
}

/**
 * @param {string} model
 * @param {string} sparsity
 * @param {readonly string[]} options
 * @returns {Promise<Omit<Measurement, 'model' | 'sparsity' | 'method' | 'options'>>}
 */
async function pruneAndMeasure(model, sparsity, options) {
  const folder = await mkdtemp(join(tmpdir(), 'secateur-quality-'));
  try {
    const out = join(folder, 'pruned');
    const files = ['--model', checkpointOf(model), '--calibration', tokensOf(model, 'calibration'), '--out', out];
    const { output } = await runSecateur(['prune', ...files, '--sparsity', sparsity, '--nodes', '1', ...options, '--json', '--quiet']);
    const { sparsity: dropped, timings } = JSON.parse(output);
    return { perplexity: await perplexityOf(out, model), dropped: dropped.actual, seconds: timings.seconds.total };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** @param {string | undefined} file @returns {Promise<Measurement[]>} */
async function readResults(file) {
  if (file === undefined) return [];
  const text = await readFile(file, 'utf8').catch(() => '');
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}

/** Names of a list that are known, or the end. @param {string} text @param {string} separator @param {readonly string[]} known @param {string} what */
function chosen(text, separator, known, what) {
  const names = text.split(separator);
  const unknown = names.find((name) => !known.includes(name));
  if (unknown === undefined) return names;
  console.error(`There is no ${what} ${unknown}; choose of ${known.join(separator)}.`);
  process.exit(2);
}

const models = chosen(values.models, ',', MODELS, 'model');
const sparsities = chosen(values.sparsities, ',', SPARSITIES, 'sparsity');
const methods = chosen(values.methods, ';', Object.keys(METHODS), 'method');
const measured = await readResults(values.results);
/** @type {Measurement[]} */
const used = [];

/** @param {Pick<Measurement, 'model' | 'sparsity' | 'method' | 'options'>} asked @param {() => Promise<Omit<Measurement, 'model' | 'sparsity' | 'method' | 'options'>>} measure */
async function measureOnce(asked, measure) {
  const key = JSON.stringify([asked.model, asked.sparsity, asked.options]);
  const known = measured.find(({ model, sparsity, options }) => JSON.stringify([model, sparsity, options]) === key);
  const measurement = { ...(known ?? (await measure())), ...asked };
  if (known === undefined && values.results !== undefined) await appendFile(values.results, `${JSON.stringify(measurement)}\n`);
  console.error(
    `${asked.model} ${asked.sparsity} ${asked.method}: ${measurement.perplexity.toFixed(2)}${known === undefined ? '' : ' (measured before)'}`,
  );
  used.push(measurement);
}

for (const model of models) {
  await measureOnce({ model, sparsity: '0', method: 'dense', options: [] }, async () => ({
    perplexity: await perplexityOf(checkpointOf(model), model),
    dropped: 0,
    seconds: 0,
  }));
}
for (const [method, { options, ...rest }] of Object.entries(METHODS)) {
  if (!methods.includes(method)) continue;
  const step = 'step' in rest;
  for (const sparsity of sparsities.filter((given) => !step || SPARSITIES_OF_STEPS.includes(given))) {
    for (const model of models) await measureOnce({ model, sparsity, method, options }, () => pruneAndMeasure(model, sparsity, options));
  }
}

const page = join(workspaceRoot, 'docs/quality.md');
const compared = Object.entries(METHODS).flatMap(([method, rest]) => ('step' in rest ? [] : [method]));
for (const [table, text] of Object.entries(qualityTables(used, { models, compared }))) {
  console.log(`\n${table}\n${text}`);
  if (values.write) writeFileSync(page, writeSection(readFileSync(page, 'utf8'), table, text));
}

// A whole `secateur prune` of a model of Qwen2.5-7B's shape with random weights, on one GPU, in either kind of arithmetic.
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { runSecateur } from './run-secateur.mjs';
import { QWEN_7B, writeSyntheticModel } from './synthetic-model.mjs';
import { markdownTable } from './table.mjs';

const STEPS = ['plan', 'collect', 'allocate', 'propagate', 'write'];

/** The table of times. @param {string} parent a folder with 31 GB of room, for the model and its pruned twin */
export async function benchGpuJob(parent) {
  const folder = await mkdtemp(join(parent, 'secateur-bench-'));
  try {
    console.log(`Writing a model to ${folder}.`);
    await writeSyntheticModel(folder, QWEN_7B);
    const rows = [];
    for (const compute of ['bf16', 'f32']) {
      const out = join(folder, 'pruned');
      const input = ['--model', folder, '--calibration', join(folder, 'ids.safetensors'), '--sparsity', '0.7', '--out', out];
      const how = ['--backend', 'cuda', '--nodes', '1', '--compute', compute, '--json', '--quiet'];
      const { seconds, output } = await runSecateur(['prune', ...input, ...how]);
      const steps = JSON.parse(output).timings.seconds;
      rows.push([`--compute ${compute}`, ...STEPS.map((step) => steps[step].toFixed(1)), steps.total.toFixed(1), seconds.toFixed(1)]);
      await rm(out, { recursive: true });
    }
    return markdownTable(['job', ...STEPS.map((step) => `${step} s`), 'job s', 'command s'], rows);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

// A whole `secateur prune`: wall time against the sum of its steps, peak memory of its processes, what tracing costs; and start-up of the command.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { workspaceRoot } from '../scripts/lib/workspace-root.mjs';
import { runSecateur } from './run-secateur.mjs';
import { HIDDEN_1024, writeSyntheticModel } from './synthetic-model.mjs';
import { markdownTable, median } from './table.mjs';

const ROUNDS = 3;
const HELP_ROUNDS = 9;

/** @returns {Promise<Record<string, string>>} tables by name */
export async function benchPrune() {
  const folder = await mkdtemp(join(tmpdir(), 'secateur-bench-'));
  try {
    await writeSyntheticModel(folder, HIDDEN_1024);
    const models = [
      [
        'books-qwen2, 128 x 256 tokens',
        join(workspaceRoot, 'examples/models/books-qwen2'),
        join(workspaceRoot, 'tests/fixtures/calibration/books-qwen2-calibration.safetensors'),
      ],
      ['hidden 1024, 4 layers, 16 x 512 tokens', folder, join(folder, 'ids.safetensors')],
    ];
    const rows = [];
    const memory = [];
    let outputs = 0;
    const prune = (/** @type {string} */ model, /** @type {string} */ data, /** @type {string[]} */ extra) =>
      runSecateur([
        'prune',
        '--model',
        model,
        '--calibration',
        data,
        '--sparsity',
        '0.7',
        '--out',
        join(folder, `out-${outputs++}`),
        '--json',
        '--quiet',
        ...extra,
      ]);
    for (const [name = '', model = '', data = ''] of models) {
      const { seconds, output, peaks } = await prune(model, data, []);
      const { timings, nodes } = JSON.parse(output);
      const steps = timings.seconds;
      const { total, ...parts } = steps;
      const sum = Object.values(parts).reduce((left, right) => left + right, 0);
      const cells = ['plan', 'collect', 'allocate', 'write', 'propagate'].map((step) => steps[step].toFixed(2));
      rows.push([name, ...cells, sum.toFixed(2), total.toFixed(2), seconds.toFixed(2)]);
      const mebibytes = (/** @type {number} */ bytes) => (bytes / 2 ** 20).toFixed(0);
      for (const {
        name: node,
        memory: { plannedBytes, peakBytes },
      } of nodes) {
        const others = ['orchestrator', 'command'].map((role) => (peaks.get(role) ?? 0).toFixed(0));
        memory.push([`${name}: ${node}`, mebibytes(plannedBytes), mebibytes(peakBytes), (peakBytes / plannedBytes).toFixed(2), ...others]);
      }
    }
    /** @type {number[]} */
    const ratios = [];
    const [, model = '', data = ''] = models[1] ?? [];
    for (let round = 0; round < ROUNDS; round++) {
      const job = async (/** @type {string[]} */ extra) => JSON.parse((await prune(model, data, extra)).output).timings.seconds.total;
      const without = await job([]);
      ratios.push((await job(['--trace-out', join(folder, 'trace.json')])) / without);
    }
    const help = [];
    const empty = [];
    for (let round = 0; round < HELP_ROUNDS; round++) {
      help.push((await runSecateur(['--help'])).seconds);
      const started = performance.now();
      await once(spawn(process.execPath, ['-e', '0']), 'close');
      empty.push((performance.now() - started) / 1000);
    }
    return {
      prune: markdownTable(
        ['job on 2 nodes', 'plan s', 'collect s', 'allocate s', 'write s', 'propagate s', 'sum of steps s', 'job s', 'command s'],
        rows,
      ),
      memory: markdownTable(['job on 2 nodes', 'planned MiB', 'peak MiB', 'peak / planned', 'orchestrator MiB', 'command MiB'], memory),
      overheads: markdownTable(
        ['what', 'value'],
        [
          ['job with a recorded trace / without (median)', median(ratios).toFixed(3)],
          ['`secateur --help` s', median(help).toFixed(3)],
          ['`node -e 0` s', median(empty).toFixed(3)],
        ],
      ),
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

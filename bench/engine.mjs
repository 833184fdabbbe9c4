// The engine against the limits of the machine: block forward against the matrix library, row allocation against the published way.
import { join } from 'node:path';
import { requireCommand } from '../scripts/lib/run-command.mjs';
import { addonBuildFolder, nativeFolder } from '../scripts/lib/native-build.mjs';
import { markdownTable } from './table.mjs';

const folder = join(addonBuildFolder, 'bench');

/** @param {string} program */
async function readCases(program) {
  const output = await requireCommand(join(folder, program), [], { quiet: true });
  return (
    output
      .trim()
      .split('\n')
      // What is for people, such as shares of phases, is no JSON.
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line))
  );
}

async function build() {
  const options = ['-DCMAKE_BUILD_TYPE=Release', '-DSECATEUR_BENCH=ON', '-DSECATEUR_CUDA=OFF'];
  await requireCommand('cmake', ['-S', nativeFolder, '-B', folder, ...options], { quiet: true });
  await requireCommand('cmake', ['--build', folder, '--parallel', '2', '--target', 'bench_forward', 'bench_allocation'], { quiet: true });
}

/** Blocks of several shapes against the matrix library on the same shapes. */
export async function measureForward() {
  await build();
  return readCases('bench/bench_forward');
}

/** @returns {Promise<Record<string, string>>} tables by name */
export async function benchEngine() {
  const forward = await measureForward();
  const allocation = await readCases('bench/bench_allocation');
  return {
    forward: markdownTable(
      [
        'block',
        'threads',
        'block forward GFLOP/s',
        'sgemm on the same shapes GFLOP/s',
        'share',
        'collecting takes',
        'pruned to 80 % is faster',
        'bf16 is faster',
        'both are faster',
      ],
      forward.map((row) => [
        row.case,
        row.threads,
        row.blockGflops,
        row.gemmGflops,
        row.ratio.toFixed(2),
        row.collect.toFixed(2),
        `${row.pruned.toFixed(2)} x`,
        ...[row.bf16, row.prunedBf16].map((times) => (times > 0 ? `${times.toFixed(2)} x` : 'not here')),
      ]),
    ),
    allocation: markdownTable(
      ['projection', 'steps', 'curves and search ms', 'masked product per step ms', 'times faster'],
      allocation.map((row) => [
        `${row.rows} x ${row.columns}, ${row.samples} samples`,
        row.steps,
        row.engine_ms,
        row.masked_products_ms,
        row.ratio.toFixed(1),
      ]),
    ),
  };
}

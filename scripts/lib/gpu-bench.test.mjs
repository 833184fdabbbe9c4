import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import {
  gpuByName,
  gpuNames,
  gpuOfDevice,
  limitMs,
  measuredTable,
  parseLines,
  phaseTable,
  predictedTable,
} from '../../bench/gpu-tables.mjs';
import { emulatedCudaBuildFolder } from './native-build.mjs';
import { workspaceRoot } from './workspace-root.mjs';

/** @typedef {import('../../bench/gpu-tables.mjs').Gpu} Gpu */

const h100 = /** @type {Gpu} */ (gpuByName('h100'));
/** @type {import('../../bench/gpu-tables.mjs').Operation} */
const copy = { operation: 'copy', arithmetic: 'f32', flops: 0, bytes: 3350e6, ms: 2 };
/** @type {import('../../bench/gpu-tables.mjs').Operation} */
const product = { operation: 'product', arithmetic: 'bf16', flops: 989e9, bytes: 1e6, ms: 4 };

/** @param {string} program @param {readonly string[]} args */
function run(program, args) {
  const library = join(emulatedCudaBuildFolder, 'test/cuda/libsecateur_cuda_on_host_backend.so');
  const env = { ...process.env, SECATEUR_CUDA_LIBRARY: library };
  const { status, stdout, stderr } = spawnSync(join(emulatedCudaBuildFolder, program), args, { encoding: 'utf8', env });
  return { status, stderr, lines: parseLines(stdout) };
}

describe('tables', () => {
  test('the limit is that of memory or of arithmetic, whichever takes longer', () => {
    expect(limitMs(copy, h100)).toBeCloseTo(1, 12);
    expect(limitMs(product, h100)).toBeCloseTo(1, 12);
  });

  test('devices are known by the names that drivers give them', () => {
    expect(gpuOfDevice('NVIDIA H100 80GB HBM3')?.name).toBe('h100');
    expect(gpuOfDevice('NVIDIA H200')?.name).toBe('h200');
    expect(gpuOfDevice('NVIDIA A100-SXM4-80GB')?.name).toBe('a100');
    expect(gpuOfDevice('NVIDIA L40S')?.name).toBe('l40s');
    expect(gpuOfDevice('NVIDIA L4')?.name).toBe('l4');
    expect(gpuOfDevice('NVIDIA GeForce RTX 4090')).toBeUndefined();
    expect(gpuNames.map((name) => gpuByName(name)?.name)).toEqual(gpuNames);
  });

  test('measured figures and their share of the limit', () => {
    expect(measuredTable([copy, product], h100)).toContain('| copy | 2.00 | 1675 | 0.00 | 0.50 |\n| product | 4.00 | 0.250 | 247 | 0.25 |');
    expect(measuredTable([copy], undefined)).toContain('| copy | 2.00 | 1675 | 0.00 | ? |');
  });

  test('predictions say that they are, and what bounds them', () => {
    expect(predictedTable([copy, product], h100)).toContain('| copy | 1.00 | memory |\n| product | 1.00 | bf16 arithmetic |');
    expect(predictedTable([copy], h100)).toContain('predicted');
  });
});

describe('programs that measure a GPU, on the emulated one', () => {
  test('every operation is timed, and its figures are those that need no device', () => {
    const timed = run('test/cuda/bench_operations_on_host', ['--tiny']);
    expect(timed).toMatchObject({ status: 0, stderr: expect.stringContaining('products: ') });
    const figures = run('test/cuda/bench_operations_on_host', ['--tiny', '--figures']).lines;
    expect(figures.length).toBeGreaterThan(20);
    expect(timed.lines.every(({ ms }) => ms > 0)).toBe(true);
    expect(timed.lines.map(({ ms, ...figure }) => figure)).toEqual(figures);
  }, 60_000);

  test.each([['f32'], ['bf16']])(
    'the phases of a block, %s',
    (compute) => {
      const { status, lines } = run('bench/bench_block', ['--tiny', ...(compute === 'bf16' ? ['--bf16'] : [])]);
      expect(status).toBe(0);
      const steps = ['load', 'embed', 'collect', 'allocate', 'mask', 'propagate'];
      expect([...new Set(lines.map(({ step }) => step))]).toEqual(steps);
      expect(lines.every(({ ms }) => ms >= 0)).toBe(true);
      expect(phaseTable(lines, lines)).toMatch(/\| allocate \| search \| (\S+) \| \1 \|/);
    },
    60_000,
  );

  test('without a backend the reason is said', () => {
    const { status, stderr } = spawnSync(join(emulatedCudaBuildFolder, 'bench/bench_block'), ['--tiny'], {
      encoding: 'utf8',
      env: { ...process.env, SECATEUR_CUDA_LIBRARY: join(workspaceRoot, 'nothing.so') },
    });
    expect(status).toBe(1);
    expect(stderr).toContain('No CUDA backend: ');
  });
});

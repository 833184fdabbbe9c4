/** What nvcc makes of every kernel stays within native/cuda/kernel-budgets.json: registers, shared memory, and no spills and no stack. */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';

const nativeFolder = fileURLToPath(new URL('..', import.meta.url));
const kernelFolder = join(nativeFolder, 'src/cuda/kernels');

interface Budgets {
  /** Release of nvcc that the budgets were set with; another one may need others. */
  readonly nvcc: string;
  readonly architectures: readonly string[];
  /** By file and kernel: ceilings of registers per thread and of static shared memory in bytes. */
  readonly kernels: Readonly<Record<string, { readonly registers: number; readonly sharedBytes: number }>>;
}

interface Usage {
  readonly kernel: string;
  readonly registers: number;
  readonly sharedBytes: number;
  readonly stackAndSpillBytes: number;
}

const budgets = JSON.parse(readFileSync(join(nativeFolder, 'kernel-budgets.json'), 'utf8')) as Budgets;

function findNvcc(): string | undefined {
  return ['nvcc', '/usr/local/cuda/bin/nvcc'].find((program) => spawnSync(program, ['--version']).status === 0);
}

const nvcc = findNvcc();
const release =
  nvcc === undefined ? undefined : /release (\d+\.\d+)/.exec(spawnSync(nvcc, ['--version'], { encoding: 'utf8' }).stdout)?.[1];

/** Name of a kernel without namespaces and types: `multiply<64>` for `_ZN8secateur3gpu…8multiplyILj64EE…`. */
function shortName(mangled: string): string {
  const { stdout } = spawnSync('c++filt', [mangled], { encoding: 'utf8' });
  const [signature = ''] = stdout.trim().split(/\((?!anonymous)/);
  return signature
    .replaceAll(/\(anonymous namespace\)::|secateur::gpu::|^void /g, '')
    .replaceAll(/\((?:unsigned int|bool|int)\)/g, '')
    .replaceAll(/(\d)u\b/g, '$1')
    .trim();
}

/** Reads what `ptxas -v` says. */
function parseUsage(file: string, output: string): Usage[] {
  const pattern =
    /Compiling entry function '(\w+)'[\s\S]*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads[\s\S]*?Used (\d+) registers([^\n]*)/g;
  return [...output.matchAll(pattern)].map(([, mangled = '', stack, stores, loads, registers, rest = '']) => ({
    kernel: `${file.replace('.cu', '')}/${shortName(mangled)}`,
    registers: Number(registers),
    sharedBytes: Number(/(\d+) bytes smem/.exec(rest)?.[1] ?? 0),
    stackAndSpillBytes: Number(stack) + Number(stores) + Number(loads),
  }));
}

function compile(file: string, architecture: string): Usage[] {
  const options = ['-std=c++17', `-arch=${architecture}`, '-Xptxas=-v', '-cubin', '-o', '/dev/null', '-I', join(nativeFolder, 'src')];
  const { status, stderr } = spawnSync(nvcc ?? '', [...options, join(kernelFolder, file)], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return parseUsage(file, stderr);
}

const reason =
  nvcc === undefined ? 'no nvcc' : release === budgets.nvcc ? undefined : `nvcc ${release ?? '?'}, budgets are for ${budgets.nvcc}`;

(reason === undefined ? describe : describe.skip)(`kernels${reason === undefined ? '' : ` (skipped: ${reason})`}`, () => {
  const files = readdirSync(kernelFolder).filter((name) => name.endsWith('.cu'));
  const seen = new Set<string>();

  test.each(budgets.architectures.flatMap((architecture) => files.map((file) => [file, architecture] as const)))(
    '%s stays within its budget on %s',
    (file, architecture) => {
      const usages = compile(file, architecture);
      expect(usages.length).toBeGreaterThan(0);
      for (const { kernel, registers, sharedBytes, stackAndSpillBytes } of usages) {
        seen.add(kernel);
        const budget = budgets.kernels[kernel];
        expect({ kernel, budgeted: budget !== undefined }).toEqual({ kernel, budgeted: true });
        expect({ kernel, stackAndSpillBytes }).toEqual({ kernel, stackAndSpillBytes: 0 });
        expect({ kernel, registers, within: registers <= (budget?.registers ?? 0) }).toEqual({ kernel, registers, within: true });
        expect({ kernel, sharedBytes, within: sharedBytes <= (budget?.sharedBytes ?? 0) }).toEqual({ kernel, sharedBytes, within: true });
      }
    },
    120_000,
  );

  test('no budget is for a kernel that is gone', () => {
    expect(Object.keys(budgets.kernels).filter((kernel) => !seen.has(kernel))).toEqual([]);
  });
});

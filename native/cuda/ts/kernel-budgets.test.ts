/**
 * What nvcc makes of every kernel stays within native/cuda/kernel-budgets.json: registers, shared memory, no spills and no stack, enough warps
 * resident on a multiprocessor; and the size of the library.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';

const nativeFolder = fileURLToPath(new URL('..', import.meta.url));
const kernelFolder = join(nativeFolder, 'src/cuda/kernels');

interface Budget {
  /** Per thread. */
  readonly registers: number;
  readonly sharedBytes: number;
  /** What launches ask for beside the static; none when left out. */
  readonly dynamicSharedBytes?: number;
  /** At least so many warps are resident on a multiprocessor, on each of the architectures. */
  readonly warps: number;
}

interface Budgets {
  /** Release of nvcc that the budgets were set with; another one may need others. */
  readonly nvcc: string;
  readonly architectures: readonly string[];
  /** Of libsecateur_cuda.so, with the code of all targets. */
  readonly cudaLibraryBytes: number;
  /** By file and kernel. */
  readonly kernels: Readonly<Record<string, Budget>>;
}

interface Usage {
  readonly kernel: string;
  readonly registers: number;
  readonly sharedBytes: number;
  readonly stackAndSpillBytes: number;
  /** Of a block, by the kernel's launch bounds. */
  readonly threads: number;
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

/** By mangled name: the threads of a block, which every kernel states as its launch bounds. */
function parseLaunchBounds(ptx: string): Map<string, number> {
  const pattern = /\.entry (\w+)\([^)]*\)\s*\.maxntid (\d+)/g;
  return new Map([...ptx.matchAll(pattern)].map(([, name = '', threads]) => [name, Number(threads)]));
}

/** Reads what `ptxas -v` says. */
function parseUsage(file: string, output: string, launchBounds: ReadonlyMap<string, number>): Usage[] {
  const pattern =
    /Compiling entry function '(\w+)'[\s\S]*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads[\s\S]*?Used (\d+) registers([^\n]*)/g;
  return [...output.matchAll(pattern)].map(([, mangled = '', stack, stores, loads, registers, rest = '']) => ({
    kernel: `${file.replace('.cu', '')}/${shortName(mangled)}`,
    registers: Number(registers),
    sharedBytes: Number(/(\d+) bytes smem/.exec(rest)?.[1] ?? 0),
    stackAndSpillBytes: Number(stack) + Number(stores) + Number(loads),
    threads: launchBounds.get(mangled) ?? 0,
  }));
}

function compile(file: string, architecture: string, folder: string): Usage[] {
  const kept = mkdtempSync(join(folder, 'kept-'));
  const options = ['-std=c++17', `-arch=${architecture}`, '-Xptxas=-v', '-cubin', '-o', '/dev/null', '-I', join(nativeFolder, 'src')];
  const keep = ['--keep', '--keep-dir', kept];
  const { status, stderr } = spawnSync(nvcc ?? '', [...options, ...keep, join(kernelFolder, file)], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  const ptx = readFileSync(join(kept, file.replace('.cu', '.ptx')), 'utf8');
  return parseUsage(file, stderr, parseLaunchBounds(ptx));
}

/** The toolkit's headers are beside nvcc, wherever a link to it lies. */
function toolkitIncludeFolder(): string {
  const { stderr } = spawnSync(nvcc ?? '', ['--dryrun', '-E', '-x', 'cu', '/dev/null'], { encoding: 'utf8' });
  const top = /^#\$ TOP=(.*)$/m.exec(stderr)?.[1];
  if (top === undefined) throw new Error(`nvcc does not say where its toolkit is: ${stderr}`);
  return join(top, 'include');
}

/** Compiles the occupancy calculator. */
function buildCalculator(folder: string): string {
  const program = join(folder, 'occupancy');
  const source = join(nativeFolder, 'test/cuda/occupancy.cc');
  const { status, stderr } = spawnSync('c++', ['-std=c++20', '-isystem', toolkitIncludeFolder(), '-o', program, source], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
  return program;
}

/** Warps that are resident on a multiprocessor at once. */
function residentWarps(calculator: string, architecture: string, usage: Usage, dynamicSharedBytes: number): number {
  const { registers, sharedBytes, threads } = usage;
  const input = [architecture.replace('sm_', ''), registers, sharedBytes, dynamicSharedBytes, threads].join(' ');
  return Number(spawnSync(calculator, { input, encoding: 'utf8' }).stdout);
}

const reason =
  nvcc === undefined ? 'no nvcc' : release === budgets.nvcc ? undefined : `nvcc ${release ?? '?'}, budgets are for ${budgets.nvcc}`;

(reason === undefined ? describe : describe.skip)(`kernels${reason === undefined ? '' : ` (skipped: ${reason})`}`, () => {
  const files = readdirSync(kernelFolder).filter((name) => name.endsWith('.cu'));
  const seen = new Set<string>();
  let folder: string;
  let calculator: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'secateur-kernels-'));
    calculator = buildCalculator(folder);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test.each(budgets.architectures.flatMap((architecture) => files.map((file) => [file, architecture] as const)))(
    '%s stays within its budget on %s',
    (file, architecture) => {
      const usages = compile(file, architecture, folder);
      expect(usages.length).toBeGreaterThan(0);
      for (const usage of usages) {
        const { kernel, registers, sharedBytes, stackAndSpillBytes } = usage;
        seen.add(kernel);
        const budget = budgets.kernels[kernel];
        expect({ kernel, budgeted: budget !== undefined }).toEqual({ kernel, budgeted: true });
        expect({ kernel, stackAndSpillBytes }).toEqual({ kernel, stackAndSpillBytes: 0 });
        expect({ kernel, registers, within: registers <= (budget?.registers ?? 0) }).toEqual({ kernel, registers, within: true });
        expect({ kernel, sharedBytes, within: sharedBytes <= (budget?.sharedBytes ?? 0) }).toEqual({ kernel, sharedBytes, within: true });
        const warps = residentWarps(calculator, architecture, usage, budget?.dynamicSharedBytes ?? 0);
        expect({ kernel, warps, enough: warps >= (budget?.warps ?? Infinity) }).toEqual({ kernel, warps, enough: true });
      }
    },
    120_000,
  );

  test('no budget is for a kernel that is gone', () => {
    expect(Object.keys(budgets.kernels).filter((kernel) => !seen.has(kernel))).toEqual([]);
  });

  test('the library is not larger than its budget', () => {
    const library = join(nativeFolder, 'build/Release/libsecateur_cuda.so');
    expect(statSync(library).size).toBeLessThanOrEqual(budgets.cudaLibraryBytes);
  });
});

/**
 * What nvcc makes of every kernel stays within native/cuda/kernel-budgets.json, for each architecture that the library has code for: registers,
 * shared memory, no stack and so no spilled registers, enough warps resident on a multiprocessor; and the size of the library.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { readCompiledCode, type CompiledCode, type CompiledKernel } from './testing/compiled-kernels.js';

const nativeFolder = fileURLToPath(new URL('..', import.meta.url));
const kernelFolder = join(nativeFolder, 'src/cuda/kernels');
const library = join(nativeFolder, 'build/Release/libsecateur_cuda.so');

/** On every architecture, or on each. */
type Limit = number | Readonly<Record<string, number>>;

interface Budget {
  /** Per thread. */
  readonly registers: Limit;
  readonly sharedBytes: number;
  /** What launches ask for beside the static; none when left out. */
  readonly dynamicSharedBytes?: number;
  /** At least so many warps are resident on a multiprocessor. None where it has not the shared memory: something else runs there. */
  readonly warps: Limit;
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

interface NamedKernel extends CompiledKernel {
  /** Of its source. */
  readonly file: string;
  /** As in the budgets. */
  readonly name: string;
}

const budgets = JSON.parse(readFileSync(join(nativeFolder, 'kernel-budgets.json'), 'utf8')) as Budgets;

function findNvcc(): string | undefined {
  return ['nvcc', '/usr/local/cuda/bin/nvcc'].find((program) => spawnSync(program, ['--version']).status === 0);
}

const nvcc = findNvcc();
const release =
  nvcc === undefined ? undefined : /release (\d+\.\d+)/.exec(spawnSync(nvcc, ['--version'], { encoding: 'utf8' }).stdout)?.[1];

/** The files that kernels come from, and their names without namespaces and types: `multiply<64>` for `_ZN8secateur3gpu…8multiplyILj64EE…`. */
function nameKernels(kernels: readonly CompiledKernel[]): NamedKernel[] {
  const input = kernels.map(({ mangledName }) => mangledName).join('\n');
  const signatures = spawnSync('c++filt', { input, encoding: 'utf8' }).stdout.trim().split('\n');
  return kernels.map((kernel, index) => {
    const [signature = ''] = (signatures[index] ?? '').split(/\((?!anonymous)/);
    const short = signature
      .replaceAll(/\(anonymous namespace\)::|secateur::gpu::|^void /g, '')
      .replaceAll(/\((?:unsigned int|bool|int)\)/g, '')
      .replaceAll(/(\d)u\b/g, '$1')
      .trim();
    const file = fileOf(kernel.mangledName);
    return { ...kernel, file: `${file}.cu`, name: `${file}/${short}` };
  });
}

/** nvcc names the anonymous namespace of a file by it: `_GLOBAL__N__<hash>_<length>_<file>_cu_<hash>`. */
function fileOf(mangledName: string): string {
  const [, length = '', rest = ''] = /_GLOBAL__N__[0-9a-f]+_(\d+)_(\w+)/.exec(mangledName) ?? [];
  const file = rest.slice(0, Number(length));
  if (!file.endsWith('_cu')) throw new Error(`${mangledName} is in no anonymous namespace of a .cu file: put it in one.`);
  return file.slice(0, -'_cu'.length);
}

function limitOn(limit: Limit | undefined, architecture: string): number | undefined {
  return typeof limit === 'object' ? limit[architecture] : limit;
}

/** What the library is compiled for: CMake's targets. */
function compiledTargets(): { real: string[]; virtual: string[] } {
  const text = readFileSync(join(nativeFolder, 'src/cuda/CMakeLists.txt'), 'utf8');
  const targets = (kind: string, prefix: string) =>
    [...text.matchAll(new RegExp(`^ *(\\d+)-${kind}\\b`, 'gm'))].map(([, number = '']) => `${prefix}_${number}`);
  return { real: targets('real', 'sm'), virtual: targets('virtual', 'compute') };
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

/** Warps of each kernel that are resident on a multiprocessor at once. */
function residentWarps(calculator: string, kernels: readonly NamedKernel[]): Map<NamedKernel, number> {
  const lines = kernels.map(({ architecture, registers, sharedBytes, threads, name }) =>
    [architecture.replace('sm_', ''), registers, sharedBytes, budgets.kernels[name]?.dynamicSharedBytes ?? 0, threads].join(' '),
  );
  const results = spawnSync(calculator, { input: lines.join('\n'), encoding: 'utf8' }).stdout.split('\n');
  return new Map(kernels.map((kernel, index) => [kernel, Number(results[index])]));
}

/** A kernel that has everything which budgets are about. */
const showpiece = `
__global__ void __launch_bounds__(192) showpiece(const int* in, int* out) {
  __shared__ int shared[100];
  int own[64];
  for (int i = 0; i < 64; ++i) own[in[i] % 64] = i;
  shared[threadIdx.x % 100] = own[in[threadIdx.x] % 64];
  __syncthreads();
  out[threadIdx.x] = shared[in[1] % 100];
}`;

/** What `ptxas -v` says of a kernel, for each architecture. */
function compileAloud(source: string, fatBinary: string): Record<string, object> {
  const targets = budgets.architectures.map((name) => `-gencode=arch=${name.replace('sm', 'compute')},code=${name}`);
  const { status, stderr } = spawnSync(nvcc ?? '', [...targets, '-Xptxas=-v', '-fatbin', '-o', fatBinary, source], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  const pattern =
    /Compiling entry function '\w+' for '(\w+)'[\s\S]*?(\d+) bytes stack frame[\s\S]*?Used (\d+) registers.*? (\d+) bytes smem/g;
  return Object.fromEntries(
    [...stderr.matchAll(pattern)].map(([, architecture, stack, registers, shared]) => [
      architecture,
      { registers: Number(registers), sharedBytes: Number(shared), stackBytes: Number(stack), threads: 192 },
    ]),
  );
}

const reason =
  nvcc === undefined ? 'no nvcc' : release === budgets.nvcc ? undefined : `nvcc ${release ?? '?'}, budgets are for ${budgets.nvcc}`;

(reason === undefined ? describe : describe.skip)(`kernels${reason === undefined ? '' : ` (skipped: ${reason})`}`, () => {
  const files = readdirSync(kernelFolder).filter((name) => name.endsWith('.cu'));
  let folder: string;
  let code: CompiledCode;
  let kernels: NamedKernel[];
  let warpsOf: Map<NamedKernel, number>;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'secateur-kernels-'));
    code = readCompiledCode(library);
    kernels = nameKernels(code.kernels);
    warpsOf = residentWarps(buildCalculator(folder), kernels);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test('budgets are for every architecture that the library is compiled for', () => {
    const targets = compiledTargets();
    expect(targets.real).toEqual(budgets.architectures);
    expect([...new Set(kernels.map(({ architecture }) => architecture))].sort()).toEqual([...budgets.architectures].sort());
    expect(targets.virtual.length).toBeGreaterThan(0);
    expect([...code.ptxArchitectures]).toEqual(targets.virtual);
  });

  test.each(budgets.architectures.flatMap((architecture) => files.map((file) => [file, architecture] as const)))(
    '%s stays within its budget on %s',
    (file, architecture) => {
      const compiled = kernels.filter((kernel) => kernel.file === file && kernel.architecture === architecture);
      expect(compiled.length).toBeGreaterThan(0);
      for (const kernel of compiled) {
        const { name, registers, sharedBytes, stackBytes } = kernel;
        const budget = budgets.kernels[name];
        expect({ name, budgeted: budget !== undefined }).toEqual({ name, budgeted: true });
        expect({ name, stackBytes }).toEqual({ name, stackBytes: 0 });
        const ceiling = limitOn(budget?.registers, architecture) ?? 0;
        expect({ name, registers, within: registers <= ceiling }).toEqual({ name, registers, within: true });
        expect({ name, sharedBytes, within: sharedBytes <= (budget?.sharedBytes ?? 0) }).toEqual({ name, sharedBytes, within: true });
        const warps = warpsOf.get(kernel) ?? 0;
        const floor = limitOn(budget?.warps, architecture) ?? Infinity;
        expect({ name, warps, enough: warps >= floor }).toEqual({ name, warps, enough: true });
      }
    },
  );

  test('no budget is for a kernel that is gone', () => {
    const names = new Set(kernels.map(({ name }) => name));
    expect(Object.keys(budgets.kernels).filter((name) => !names.has(name))).toEqual([]);
  });

  test('what is read from compiled code is what ptxas says', () => {
    const source = join(folder, 'showpiece.cu');
    writeFileSync(source, showpiece);
    const said = compileAloud(source, join(folder, 'showpiece.fatbin'));
    const read = readCompiledCode(join(folder, 'showpiece.fatbin')).kernels.map(
      ({ architecture, registers, sharedBytes, stackBytes, threads }) =>
        [architecture, { registers, sharedBytes, stackBytes, threads }] as const,
    );
    expect(Object.fromEntries(read)).toEqual(said);
    expect(read.map(([architecture]) => architecture)).toEqual(budgets.architectures);
    for (const [, { stackBytes, sharedBytes }] of read) expect([stackBytes, sharedBytes]).toEqual([256, 400]);
  }, 120_000);

  test('the library is not larger than its budget', () => {
    expect(statSync(library).size).toBeLessThanOrEqual(budgets.cudaLibraryBytes);
  });
});

// Plants bugs in the CUDA kernels, one at a time, and tells which of them the tests on the host notice: barriers and waits removed, wrong lane
// masks, bounds that are off by one. Not part of the tests: it takes minutes.
//   node scripts/mutate-kernels.mjs [kernel...]        such as: node scripts/mutate-kernels.mjs attention
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import {
  buildCppTests,
  buildEmulatedCuda,
  buildRaceCheck,
  cppTestsBuildFolder,
  emulatedCudaBuildFolder,
  nativeFolder,
  raceCheckBuildFolder,
} from './lib/native-build.mjs';

const kernelFolder = join(nativeFolder, 'src', 'cuda', 'kernels');
const testFolder = join(nativeFolder, 'test', 'cuda');
const longestTestMs = 600_000;

/** What may be done to a line; each match is one bug. @type {readonly { what: string, pattern: RegExp, replacement: string }[]} */
const mutations = [
  { what: 'barrier removed', pattern: /__syncthreads\(\);/g, replacement: '' },
  { what: 'warp barrier removed', pattern: /__syncwarp\(\);/g, replacement: '' },
  { what: 'wait for copies removed', pattern: /copy_async_wait<[^;]*>\(\);/g, replacement: '' },
  { what: 'wrong mask', pattern: /\bkAllLanes\b/g, replacement: '0x7fffffffU' },
  { what: '< became <=', pattern: /(?<=[\w)\]]) < (?=[\w(])/g, replacement: ' <= ' },
  { what: '+ 1 lost', pattern: / \+ 1\b(?![.\d])/g, replacement: '' },
  { what: '- 1 lost', pattern: / - 1\b(?![.\d])/g, replacement: '' },
];

/** @typedef {{ line: number, what: string, text: string, source: string }} Mutant */

/** @param {string} source @returns {Mutant[]} */
function mutantsOf(source) {
  const lines = source.split('\n');
  return lines.flatMap((text, index) => {
    if (/^\s*(?:\/\/|#|template|using|static_assert)/.test(text)) return [];
    const code = text.replace(/\/\/.*$/, '');
    return mutations.flatMap(({ what, pattern, replacement }) =>
      [...code.matchAll(pattern)].map((match) => {
        const mutated = code.slice(0, match.index) + replacement + code.slice(match.index + match[0].length);
        return { line: index + 1, what, text: text.trim(), source: lines.with(index, mutated).join('\n') };
      }),
    );
  });
}

/** Test files that include the kernel's header. @param {string} kernel */
function testsOf(kernel) {
  return readdirSync(testFolder)
    .filter((name) => name.endsWith('_test.cc'))
    .map((name) => join(testFolder, name))
    .filter((path) => readFileSync(path, 'utf8').includes(`kernels/${kernel}.h"`));
}

/**
 * How a kernel and its tests are built and run, fastest first. Sanitizers see what the plain results do not show.
 * @typedef {{ name: string, buildFolder: string, options: string[] }} Check
 * @type {readonly Check[]}
 */
const checks = [
  { name: 'results', buildFolder: emulatedCudaBuildFolder, options: [] },
  { name: 'addresses', buildFolder: cppTestsBuildFolder, options: ['-fsanitize=address,undefined', '-fno-sanitize-recover=all'] },
  { name: 'races', buildFolder: raceCheckBuildFolder, options: ['-fsanitize=thread', '-DSECATEUR_RACE_CHECK'] },
];

const includes = ['emulator', 'src', 'include', 'test', 'test/cuda'].flatMap((name) => ['-I', join(nativeFolder, name)]);

/** @param {readonly string[]} args @returns {boolean} */
function compiles(args) {
  return spawnSync('g++', ['-std=c++20', '-O1', '-w', ...includes, ...args], { stdio: 'ignore' }).status === 0;
}

/** @param {string} folder @param {string} source */
function writeMutant(folder, source) {
  const file = join(folder, 'mutant.cu');
  writeFileSync(file, source);
  return file;
}

/** A check of one kernel, with its tests compiled. */
class KernelCheck {
  /** @param {Check} check @param {readonly string[]} tests @param {string} folder */
  constructor(check, tests, folder) {
    this.check = check;
    this.folder = folder;
    this.program = join(folder, 'mutant');
    this.timeoutMs = longestTestMs;
    this.objects = [join(testFolder, 'main.cc'), ...tests, join(nativeFolder, 'test/allocation/reference.cc')].map((source) => {
      const object = join(folder, `${check.name}-${basename(source)}.o`);
      if (!compiles([...check.options, '-c', source, '-o', object])) throw new Error(`${source} does not compile.`);
      return object;
    });
  }

  /** Kernels with a bug may run for ever. @param {string} source @returns {boolean} */
  passes(source) {
    const libraries = [
      'test/cuda/libsecateur_kernels_on_host.a',
      'test/emulator/libsecateur_cuda_on_host.a',
      'src/cpu/allocation/libsecateur_allocation.a',
    ];
    const linked = [...this.objects, ...libraries.map((name) => join(this.check.buildFolder, name))];
    const file = writeMutant(this.folder, source);
    if (!compiles([...this.check.options, '-x', 'c++', file, '-x', 'none', ...linked, '-o', this.program])) return false;
    return spawnSync(this.program, ['--minimal'], { timeout: this.timeoutMs, stdio: 'ignore' }).status === 0;
  }

  /** Without any bug the tests pass; the time they take tells when to give up on one. @param {string} source */
  calibrate(source) {
    const begin = performance.now();
    if (!this.passes(source)) throw new Error(`The check of ${this.check.name} fails without any bug.`);
    this.timeoutMs = 10_000 + 10 * Math.ceil(performance.now() - begin);
  }
}

/** @param {string} kernel @param {string} folder */
function mutate(kernel, folder) {
  const tests = testsOf(kernel);
  if (tests.length === 0) throw new Error(`No test in ${testFolder} includes the header of ${kernel}.`);
  const original = readFileSync(join(kernelFolder, `${kernel}.cu`), 'utf8');
  const kernelChecks = checks.map((check) => new KernelCheck(check, tests, folder));
  for (const check of kernelChecks) check.calibrate(original);
  /** @type {Record<string, number>} */
  const caughtBy = Object.fromEntries(checks.map(({ name }) => [name, 0]));
  let missed = 0;
  for (const { line, what, text, source } of mutantsOf(original)) {
    // What does not compile is no bug that a test could miss.
    if (!compiles(['-fsyntax-only', '-x', 'c++', writeMutant(folder, source)])) continue;
    const catcher = kernelChecks.find((check) => !check.passes(source));
    if (catcher) {
      caughtBy[catcher.check.name] = (caughtBy[catcher.check.name] ?? 0) + 1;
    } else {
      missed += 1;
      console.log(`missed  ${kernel}.cu:${String(line)}  ${what}:  ${text}`);
    }
  }
  const caught = Object.values(caughtBy).reduce((sum, count) => sum + count, 0);
  const by = checks.map(({ name }) => `${String(caughtBy[name])} by ${name}`).join(', ');
  console.log(`${kernel}: ${String(caught)} of ${String(caught + missed)} caught (${by})`);
  return { caught, missed };
}

const all = readdirSync(kernelFolder)
  .filter((name) => name.endsWith('.cu'))
  .map((name) => basename(name, '.cu'));
const chosen = process.argv.slice(2);
const unknown = chosen.find((name) => !all.includes(name));
if (unknown !== undefined) {
  console.error(`There is no kernel ${unknown}; choose ${all.join(', ')}.`);
  process.exit(2);
}
const folder = mkdtempSync(join(tmpdir(), 'secateur-mutants-'));
try {
  await buildEmulatedCuda();
  await buildCppTests();
  await buildRaceCheck();
  const counts = (chosen.length > 0 ? chosen : all).map((kernel) => mutate(kernel, folder));
  const caught = counts.reduce((sum, count) => sum + count.caught, 0);
  const missed = counts.reduce((sum, count) => sum + count.missed, 0);
  console.log(`${String(caught)} of ${String(caught + missed)} planted bugs caught`);
} finally {
  rmSync(folder, { recursive: true });
}

// Plants bugs in the CUDA kernels, one at a time, and tells which of them the tests on the host notice: barriers and waits removed, wrong lane
// masks, bounds that are off by one. Not part of the tests: it takes minutes.
//   node scripts/mutate-kernels.mjs [kernel...]        or what kernels share, such as: node scripts/mutate-kernels.mjs attention block_sum.h
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
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
import { requireCommand } from './lib/run-command.mjs';

const kernelFolder = join(nativeFolder, 'src', 'cuda', 'kernels');
const testFolder = join(nativeFolder, 'test', 'cuda');
const testProgram = 'secateur_cuda_kernels_test';
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

/**
 * The files of kernels that have the mutated code: the kernel itself, or all that include what several share.
 * @param {string} file
 */
function kernelsOf(file) {
  if (file.endsWith('.cu')) return [file];
  return readdirSync(kernelFolder).filter(
    (name) => name.endsWith('.cu') && readFileSync(join(kernelFolder, name), 'utf8').includes(`kernels/${file}"`),
  );
}

/** Test files that include the header of one of the kernels. @param {readonly string[]} kernels */
function testsOf(kernels) {
  const headers = kernels.map((kernel) => `kernels/${basename(kernel, '.cu')}.h"`);
  return readdirSync(testFolder).filter((name) => {
    if (!name.endsWith('_test.cc')) return false;
    const text = readFileSync(join(testFolder, name), 'utf8');
    return headers.some((header) => text.includes(header));
  });
}

/**
 * How kernels and their tests are built and run, fastest first. Sanitizers see what the plain results do not show.
 * @typedef {{ name: string, buildFolder: string }} Check
 * @type {readonly Check[]}
 */
const checks = [
  { name: 'results', buildFolder: emulatedCudaBuildFolder },
  { name: 'addresses', buildFolder: cppTestsBuildFolder },
  { name: 'races', buildFolder: raceCheckBuildFolder },
];

/** A check of some kernels: the program of all tests, linked with these kernels instead of the right ones. */
class KernelCheck {
  /** @param {Check} check @param {readonly string[]} kernels @param {readonly string[]} tests @param {string} folder */
  constructor(check, kernels, tests, folder) {
    this.check = check;
    this.folder = folder;
    this.tests = tests;
    this.program = join(folder, 'mutant');
    this.timeoutMs = longestTestMs;
    const { stdout } = spawnSync('ninja', ['-C', check.buildFolder, '-t', 'commands', testProgram], {
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    });
    const commands = stdout.split('\n').filter((line) => line !== '');
    const objects = kernels.map((kernel) => join(folder, `${check.name}-${kernel}.o`));
    this.compiling = kernels.map((kernel, index) => {
      const command = commands.find((line) => line.endsWith(` -c ${join(kernelFolder, kernel)}`));
      if (command === undefined) throw new Error(`${check.buildFolder} has no command that compiles ${kernel}.`);
      const mutant = join(folder, 'cuda', 'kernels', kernel);
      return command
        .replace(/ -MD -MT \S+ -MF \S+ -o \S+ -c \S+$/, ` -w -O1 -o ${objects[index]} -c ${mutant}`)
        .replace(/\/c\+\+ /, `/c++ -I${folder} `);
    });
    const linking = commands.at(-1) ?? '';
    // What is defined in an object is not looked for in a library.
    this.linking = linking.replace(/ -o \S+/, ` -o ${this.program}`).replace(/(\/c\+\+ )/, `$1${objects.join(' ')} `);
  }

  /** @returns {boolean} */
  compiles() {
    return this.compiling.every((command) => this.run(command) === 0);
  }

  /** Kernels with a bug may run for ever. @returns {boolean} */
  passes() {
    if (!this.compiles() || this.run(this.linking) !== 0) return false;
    const sources = this.tests.map((name) => `*${name}`).join(',');
    const args = ['--minimal', `--source-file=${sources}`, "--test-case-exclude=*the published code's decisions"];
    // Races come back as failed launches, which the cases notice.
    const env = { ...process.env, TSAN_OPTIONS: 'exitcode=0', UBSAN_OPTIONS: 'halt_on_error=1' };
    return spawnSync(this.program, args, { timeout: this.timeoutMs, stdio: 'ignore', env }).status === 0;
  }

  /** Without any bug the tests pass; the time they take tells when to give up on one. */
  calibrate() {
    const begin = performance.now();
    if (!this.passes()) throw new Error(`The check of ${this.check.name} fails without any bug.`);
    this.timeoutMs = 10_000 + 10 * Math.ceil(performance.now() - begin);
  }

  /** @param {string} command of a shell */
  run(command) {
    return spawnSync('sh', ['-c', command], { cwd: this.check.buildFolder, stdio: 'ignore' }).status;
  }
}

/** @param {string} file of a kernel, or what several share @param {string} folder */
function mutate(file, folder) {
  const kernels = kernelsOf(file);
  const tests = testsOf(kernels);
  if (tests.length === 0) throw new Error(`No test in ${testFolder} includes the header of ${kernels.join(', ')}.`);
  const copies = join(folder, 'cuda', 'kernels');
  mkdirSync(copies, { recursive: true });
  for (const name of new Set([...kernels, file])) copyFileSync(join(kernelFolder, name), join(copies, name));
  const kernelChecks = checks.map((check) => new KernelCheck(check, kernels, tests, folder));
  for (const check of kernelChecks) check.calibrate();
  /** @type {Record<string, number>} */
  const caughtBy = Object.fromEntries(checks.map(({ name }) => [name, 0]));
  let missed = 0;
  for (const { line, what, text, source } of mutantsOf(readFileSync(join(kernelFolder, file), 'utf8'))) {
    writeFileSync(join(copies, file), source);
    // What does not compile is no bug that a test could miss.
    if (!kernelChecks[0]?.compiles()) continue;
    const catcher = kernelChecks.find((check) => !check.passes());
    if (catcher) {
      caughtBy[catcher.check.name] = (caughtBy[catcher.check.name] ?? 0) + 1;
    } else {
      missed += 1;
      console.log(`missed  ${file}:${String(line)}  ${what}:  ${text}`);
    }
  }
  rmSync(join(folder, 'cuda'), { recursive: true });
  const caught = Object.values(caughtBy).reduce((sum, count) => sum + count, 0);
  const by = checks.map(({ name }) => `${String(caughtBy[name])} by ${name}`).join(', ');
  console.log(`${basename(file, '.cu')}: ${String(caught)} of ${String(caught + missed)} caught (${by})`);
  return { caught, missed };
}

const files = readdirSync(kernelFolder);
const all = files
  .filter((name) => name.endsWith('.cu') || !files.includes(name.replace(/\.h$/, '.cu')))
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
  for (const { buildFolder } of checks) await requireCommand('cmake', ['--build', buildFolder, '--target', testProgram], { quiet: true });
  const counts = (chosen.length > 0 ? chosen : all).map((name) => mutate(name.endsWith('.h') ? name : `${name}.cu`, folder));
  const caught = counts.reduce((sum, count) => sum + count.caught, 0);
  const missed = counts.reduce((sum, count) => sum + count.missed, 0);
  console.log(`${String(caught)} of ${String(caught + missed)} planted bugs caught`);
} finally {
  rmSync(folder, { recursive: true });
}

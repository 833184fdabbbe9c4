// Plants bugs in the CUDA kernels, one at a time, and tells which of them the tests on the host notice: barriers and waits removed, wrong lane
// masks, bounds that are off by one. Not part of the tests: it takes minutes. `npm test` must have built the CUDA backend for the host.
//   node scripts/mutate-kernels.mjs [kernel...]        such as: node scripts/mutate-kernels.mjs attention
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { emulatedCudaBuildFolder, nativeFolder } from './lib/native-build.mjs';

const kernelFolder = join(nativeFolder, 'src', 'cuda', 'kernels');
const testFolder = join(nativeFolder, 'test', 'cuda');
const testTimeoutMs = 120_000;

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

/** @param {string} folder @param {string} source @param {readonly string[]} objects @param {boolean} sanitized */
function survives(folder, source, objects, sanitized) {
  const file = join(folder, 'mutant.cu');
  const program = join(folder, 'mutant');
  writeFileSync(file, source);
  const libraries = ['libsecateur_kernels_on_host.a', '../emulator/libsecateur_cuda_on_host.a'];
  const includes = ['emulator', 'src', 'include', 'test'].flatMap((name) => ['-I', join(nativeFolder, name)]);
  const sanitizers = sanitized ? ['-fsanitize=address,undefined', '-fno-sanitize-recover=all'] : [];
  const options = ['-std=c++20', '-O1', '-w', ...sanitizers, ...includes];
  const built = spawnSync(
    'g++',
    [
      ...options,
      '-x',
      'c++',
      file,
      '-x',
      'none',
      ...objects,
      ...libraries.map((name) => join(emulatedCudaBuildFolder, 'test/cuda', name)),
      '-o',
      program,
    ],
    { encoding: 'utf8' },
  );
  if (built.status !== 0) return undefined;
  return spawnSync(program, ['--minimal'], { timeout: testTimeoutMs, stdio: 'ignore' }).status === 0;
}

/** @param {string} kernel @param {string} folder */
function mutate(kernel, folder) {
  const tests = testsOf(kernel);
  if (tests.length === 0) throw new Error(`No test in ${testFolder} includes the header of ${kernel}.`);
  const objects = [join(testFolder, 'main.cc'), ...tests, join(nativeFolder, 'test/allocation/reference.cc')].map((source) => {
    const object = join(folder, `${basename(source)}.o`);
    const includes = ['emulator', 'src', 'include', 'test', 'test/cuda'].flatMap((name) => ['-I', join(nativeFolder, name)]);
    const built = spawnSync('g++', ['-std=c++20', '-O1', '-w', ...includes, '-c', source, '-o', object], { encoding: 'utf8' });
    if (built.status !== 0) throw new Error(built.stderr);
    return object;
  });
  const original = readFileSync(join(kernelFolder, `${kernel}.cu`), 'utf8');
  if (survives(folder, original, objects, false) !== true) throw new Error(`The tests of ${kernel} fail without any bug.`);
  let caught = 0;
  let missed = 0;
  for (const { line, what, text, source } of mutantsOf(original)) {
    const survived = survives(folder, source, objects, false) === true && survives(folder, source, objects, true) === true;
    if (survived) missed += 1;
    else caught += 1;
    if (survived) console.log(`missed  ${kernel}.cu:${String(line)}  ${what}:  ${text}`);
  }
  console.log(`${kernel}: ${String(caught)} of ${String(caught + missed)} caught`);
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
  const counts = (chosen.length > 0 ? chosen : all).map((kernel) => mutate(kernel, folder));
  const caught = counts.reduce((sum, count) => sum + count.caught, 0);
  const missed = counts.reduce((sum, count) => sum + count.missed, 0);
  console.log(`${String(caught)} of ${String(caught + missed)} planted bugs caught`);
} finally {
  rmSync(folder, { recursive: true });
}

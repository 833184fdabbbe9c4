// Sets up and runs all tests: the C++ ones under the address and undefined-behaviour sanitizers, those of the CUDA kernels under the thread
// sanitizer too, then the TypeScript ones.
// Arguments go to jest, which then runs alone:  npm test -- packages/core -t 'name of a test'
// The last line is always `N passed, N failed`.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { cppTestsBuildFolder, emulatedCudaBuildFolder, raceCheckBuildFolder } from './lib/native-build.mjs';
import { runCommand } from './lib/run-command.mjs';
import { addCounts, countCppTests, countJestTests, formatCounts } from './lib/test-counts.mjs';
import { workspaceRoot } from './lib/workspace-root.mjs';

/** @typedef {import('./lib/test-counts.mjs').TestCounts} TestCounts */

/** Whether what is usually tried in one way is tried in all: CONTRIBUTING.md. */
const everything = process.env['SECATEUR_TESTS'] === 'all';
const crashed = { passed: 0, failed: 1 };

/**
 * @param {string} folder where the results may be left
 * @param {string} buildFolder
 * @param {readonly string[]} [args] for ctest
 * @returns {Promise<TestCounts>}
 */
async function runCppTests(folder, buildFolder, args = []) {
  const results = join(folder, `${basename(buildFolder)}.xml`);
  const keptBytes = ['--test-output-size-passed', '1000000', '--test-output-size-failed', '1000000'];
  const options = ['--output-on-failure', '--no-tests=error', '--parallel', '2', ...keptBytes, '--output-junit', results];
  const { code } = await runCommand('ctest', ['--test-dir', buildFolder, ...args, ...options], {
    env: { UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1', OPENBLAS_NUM_THREADS: '1' },
  });
  return reconcile(code, readResults(results, countCppTests));
}

/**
 * Of the builds for the host and for races one program each is made; they run side by side, for they take long on one thread.
 * @param {string} folder
 * @returns {Promise<TestCounts[]>}
 */
async function runAllCppTests(folder) {
  const counts = await runCppTests(folder, cppTestsBuildFolder, everything ? [] : ['--label-exclude', '^all$']);
  const alone = await Promise.all([
    runCppTests(folder, emulatedCudaBuildFolder, ['--tests-regex', 'conformance_cuda_on_host']),
    runCppTests(folder, raceCheckBuildFolder, ['--tests-regex', 'race_check']),
  ]);
  return [counts, ...alone];
}

/**
 * @param {string} folder
 * @param {'unit' | 'system' | 'alone'} project those that run alone see how long things take, which others would change
 * @param {readonly string[]} args
 * @returns {Promise<TestCounts>}
 */
async function runJest(folder, project, args) {
  const results = join(folder, `jest-${project}.json`);
  const jest = join(workspaceRoot, 'node_modules', 'jest', 'bin', 'jest.js');
  const nodeOptions = ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning'];
  const jestOptions = ['--selectProjects', project, ...(project === 'alone' ? ['--runInBand'] : [])];
  const reporting = ['--passWithNoTests', '--json', '--outputFile', results];
  const { code } = await runCommand(process.execPath, [...nodeOptions, jest, ...args, ...jestOptions, ...reporting]);
  return reconcile(code, readResults(results, countJestTests));
}

/** @param {string} file @param {(text: string) => TestCounts} count @returns {TestCounts} */
function readResults(file, count) {
  try {
    return count(readFileSync(file, 'utf8'));
  } catch (error) {
    console.error(`The test runner left no results: ${error instanceof Error ? error.message : String(error)}`);
    return crashed;
  }
}

/** A runner that fails without naming a failed test has failed itself. @param {number} code @param {TestCounts} counts */
function reconcile(code, counts) {
  return code !== 0 && counts.failed === 0 ? addCounts([counts, crashed]) : counts;
}

/** @param {readonly string[]} args @returns {Promise<TestCounts>} */
async function runTests(args) {
  const setup = await runCommand(process.execPath, [
    join(workspaceRoot, 'scripts', 'setup.mjs'),
    ...(args.length === 0 ? ['--tests'] : []),
  ]);
  if (setup.code !== 0) return crashed;
  const folder = mkdtempSync(join(tmpdir(), 'secateur-tests-'));
  try {
    return addCounts([
      ...(args.length === 0 ? await runAllCppTests(folder) : []),
      await runJest(folder, 'unit', args),
      await runJest(folder, 'system', args),
      await runJest(folder, 'alone', args),
    ]);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const counts = await runTests(process.argv.slice(2));
if (counts.passed + counts.failed === 0) console.error('No test ran.');
console.log(formatCounts(counts));
process.exitCode = counts.passed > 0 && counts.failed === 0 ? 0 : 1;

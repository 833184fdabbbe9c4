// Runs every static check, prints the verdict of each, and fails at the end if any has failed. The last line is `N passed, N failed`.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { listFiles } from './lib/fingerprint.mjs';
import { nativeFolder } from './lib/native-build.mjs';
import { findPrivateText, findLockedAddresses } from './lib/private-text.mjs';
import { findBreakingChanges, findStaleGeneratedFiles, runBuf } from './lib/protobuf.mjs';
import { CommandError, requireCommand } from './lib/run-command.mjs';
import { formatCounts } from './lib/test-counts.mjs';
import { workspaceRoot } from './lib/workspace-root.mjs';

/** @type {readonly { name: string, check: () => Promise<unknown> }[]} each check throws when it finds something */
const checks = [
  { name: 'buf lint', check: () => runBuf(['lint']) },
  { name: 'buf breaking', check: checkBreakingChanges },
  { name: 'generated code', check: checkGeneratedCode },
  { name: 'types', check: () => runTool('typescript', 'bin/tsc', ['--project', 'tsconfig.tests.json', '--pretty', 'false']) },
  { name: 'prettier', check: () => runTool('prettier', 'bin/prettier.cjs', ['--check', '--log-level', 'warn', '.']) },
  { name: 'eslint', check: () => runTool('eslint', 'bin/eslint.js', ['--max-warnings', '0', '.']) },
  { name: 'dependency-cruiser', check: checkDependencies },
  { name: 'knip', check: () => runTool('knip', 'bin/knip.js', ['--no-progress']) },
  { name: 'clang-format', check: () => runClangFormat(['--dry-run', '-Werror']) },
  { name: 'private text', check: checkPrivateText },
];

/** @param {string} name of an npm package @param {string} program its script @param {readonly string[]} args */
function runTool(name, program, args) {
  return requireCommand(process.execPath, [join(workspaceRoot, 'node_modules', name, program), ...args], { quiet: true });
}

async function checkBreakingChanges() {
  const changes = await findBreakingChanges();
  if (changes.length > 0)
    throw new Error(`The .proto files break what the last release promised:\n${changes.join('\n')}\nSee docs/versioning.md.`);
}

async function checkGeneratedCode() {
  const stale = await findStaleGeneratedFiles();
  if (stale.length === 0) return;
  const files = stale.map(({ path }) => `  proto/gen/${path}`).join('\n');
  throw new Error(`These files differ from what the .proto files give:\n${files}\nRun npm run generate.`);
}

function checkDependencies() {
  const folders = ['packages', 'services', 'native', 'tests', 'bench', 'examples', 'scripts'].filter((folder) =>
    existsSync(join(workspaceRoot, folder)),
  );
  return runTool('dependency-cruiser', 'bin/dependency-cruise.mjs', ['--config', '.dependency-cruiser.mjs', ...folders]);
}

/** @param {readonly string[]} options */
function runClangFormat(options) {
  const folders = [nativeFolder, ...['tests', 'examples'].map((folder) => join(workspaceRoot, folder))];
  const sources = folders.flatMap((folder) => listFiles(folder)).filter((file) => /\.(cc|cpp|cu|cuh|h|hpp)$/.test(file));
  return requireCommand('clang-format', [...options, ...sources], { quiet: true });
}

function checkPrivateText() {
  const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '-z'], {
    cwd: workspaceRoot,
    encoding: 'utf8',
  })
    .split('\0')
    .filter((file) => file !== '' && existsSync(join(workspaceRoot, file)));
  const found = files.flatMap((file) => findPrivateText(readFileSync(join(workspaceRoot, file))).map((line) => `  ${file}: ${line}`));
  const addresses = findLockedAddresses(readFileSync(join(workspaceRoot, 'package-lock.json'), 'utf8'));
  found.push(...addresses.map((address) => `  package-lock.json: ${address}`));
  return found.length === 0
    ? Promise.resolve()
    : Promise.reject(new Error(`Paths or hosts of one machine or network do not belong in the repository:\n${found.join('\n')}`));
}

/** Rewrites what the formatters can put right. */
async function format() {
  await runTool('prettier', 'bin/prettier.cjs', ['--write', '--log-level', 'warn', '.']);
  await runClangFormat(['-i']);
}

async function lint() {
  const counts = { passed: 0, failed: 0 };
  for (const { name, check } of checks) {
    const startedMs = performance.now();
    /** @type {string | undefined} */
    let problem;
    try {
      await check();
    } catch (error) {
      problem = error instanceof CommandError ? error.output : error instanceof Error ? error.message : String(error);
    }
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    counts[problem === undefined ? 'passed' : 'failed'] += 1;
    console.log(`${problem === undefined ? 'passed' : 'FAILED'}  ${name} (${seconds} s)`);
    if (problem !== undefined) console.log(problem.trimEnd());
  }
  console.log(formatCounts(counts));
  if (counts.failed > 0) process.exitCode = 1;
}

try {
  await requireCommand(process.execPath, [join(workspaceRoot, 'scripts', 'setup.mjs'), '--lint']);
  await (process.argv.includes('--fix') ? format() : lint());
} catch (error) {
  console.error(error instanceof CommandError ? error.output.trimEnd() : error);
  if (!process.argv.includes('--fix')) console.log(formatCounts({ passed: 0, failed: 1 }));
  process.exitCode = 1;
}

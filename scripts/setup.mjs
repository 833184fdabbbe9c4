// Makes a clone ready to use: system packages, npm packages, generated code, TypeScript, native addon. Does only what is not done yet or has
// changed since. May use nothing but Node itself, because nothing else is installed when it runs first.
//   node scripts/setup.mjs [--tests] [--lint]
import { basename, dirname, join } from 'node:path';
import { findExecutable } from './lib/find-executable.mjs';
import { withFileLock } from './lib/file-lock.mjs';
import { fingerprint } from './lib/fingerprint.mjs';
import {
  addonBuildFolder,
  buildAddon,
  buildCppTests,
  buildEmulatedCuda,
  buildRaceCheck,
  cppTestsBuildFolder,
  emulatedCudaBuildFolder,
  raceCheckBuildFolder,
} from './lib/native-build.mjs';
import { refreshGeneratedFiles } from './lib/protobuf.mjs';
import { CommandError, requireCommand } from './lib/run-command.mjs';
import { unlessStamped } from './lib/stamp.mjs';
import { ensureSystemPackages, isAtLeast, parseVersion } from './lib/system-packages.mjs';
import { workspaceRoot } from './lib/workspace-root.mjs';

const oldestNode = [20, 19];
const platform = [process.version, process.platform, process.arch];
const modulesFolder = join(workspaceRoot, 'node_modules');

/** @param {string} line */
function say(line) {
  console.log(line);
}

/** @param {readonly string[]} args */
async function setUp(args) {
  const unknown = args.find((arg) => arg !== '--tests' && arg !== '--lint');
  if (unknown !== undefined) throw new Error(`Unknown option ${unknown}. Usage: node scripts/setup.mjs [--tests] [--lint]`);
  if (!isAtLeast(parseVersion(process.version) ?? [], oldestNode)) {
    throw new Error(`Secateur needs Node.js ${oldestNode.join('.')} or newer; this is ${process.version} (${process.execPath}).`);
  }
  const withTests = args.includes('--tests');
  /** @type {Set<'build' | 'tests' | 'lint'>} */
  const purposes = new Set(['build']);
  if (withTests) purposes.add('tests');
  if (args.includes('--lint')) purposes.add('lint');
  const startedMs = performance.now();
  const onWait = (/** @type {number} */ owner) => say(`Waiting for the setup that process ${String(owner)} is doing.`);
  const changed = await withFileLock(join(workspaceRoot, '.cache', 'setup.lock'), { onWait }, async () => [
    await ensureSystemPackages(purposes, say),
    await installPackages(),
    await generateProtobuf(),
    await compileTypeScript(),
    await compileAddon(),
    withTests && (await compileCppTests()),
    withTests && (await compileEmulatedCuda()),
    withTests && (await compileRaceCheck()),
  ]);
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  say(changed.includes(true) ? `Set up in ${seconds} s.` : `Everything is set up already (${seconds} s).`);
}

function installPackages() {
  const inputs = fingerprint({ paths: ['package-lock.json', '.npmrc'], values: platform });
  return unlessStamped(join(modulesFolder, '.secateur-stamp'), inputs, async () => {
    say('Installing the npm packages.');
    const npm = findNpm();
    const options = ['ci', '--include=dev', '--include=optional', '--prefer-offline', '--no-audit', '--no-fund'];
    await requireCommand(npm.program, [...npm.args, ...options], { quiet: true });
  });
}

/** The npm that runs this script, else the one beside this Node, else the one on the PATH. */
function findNpm() {
  const running = process.env['npm_execpath'];
  if (running !== undefined && basename(running) === 'npm-cli.js') return { program: process.execPath, args: [running] };
  const program = findExecutable('npm', [dirname(process.execPath)]) ?? findExecutable('npm');
  if (program === undefined) throw new Error(`npm was found neither beside ${process.execPath} nor on the PATH.`);
  return { program, args: [] };
}

function generateProtobuf() {
  const inputs = fingerprint({
    paths: ['proto/buf.yaml', 'proto/buf.gen.yaml', 'proto/google', 'proto/secateur', 'proto/gen', 'package-lock.json'],
  });
  return unlessStamped(join(modulesFolder, '.secateur-protobuf-stamp'), inputs, async () => {
    const refreshed = await refreshGeneratedFiles();
    if (refreshed.length > 0) say(`Generated ${refreshed.join(', ')} from the .proto files.`);
  });
}

/** The compiler looks itself for what has changed. @returns {Promise<false>} */
async function compileTypeScript() {
  await requireCommand(process.execPath, [join(modulesFolder, 'typescript', 'bin', 'tsc'), '--build', '--pretty', 'false'], {
    quiet: true,
  });
  return false;
}

function fingerprintEngine() {
  const paths = ['CMakeLists.txt', 'cmake', 'include', 'src', 'package.json'].map((name) => join('native/cuda', name));
  const toolchain = [process.env['CXX'] ?? '', findExecutable('c++') ?? '', findExecutable('nvcc') ?? ''];
  return { paths, values: [...platform, workspaceRoot, ...toolchain] };
}

function compileAddon() {
  return unlessStamped(join(addonBuildFolder, '.secateur-stamp'), fingerprint(fingerprintEngine()), async () => {
    say('Building the native engine.');
    await buildAddon();
  });
}

/**
 * A build of the engine's C++ code beside the addon's, unless what it is made of has not changed.
 * @param {string} folder
 * @param {readonly string[]} sources below native/cuda, beside those of the engine
 * @param {string} message
 * @param {() => Promise<void>} build
 */
function compileBesideAddon(folder, sources, message, build) {
  const { paths, values } = fingerprintEngine();
  const added = ['test', 'emulator', 'bench', ...sources].map((name) => join('native/cuda', name));
  return unlessStamped(join(folder, '.secateur-stamp'), fingerprint({ paths: [...paths, ...added], values }), async () => {
    say(message);
    await build();
  });
}

function compileCppTests() {
  const sources = ['ptx', '../../tests/conformance'];
  return compileBesideAddon(cppTestsBuildFolder, sources, 'Building the C++ tests with sanitizers.', buildCppTests);
}

function compileEmulatedCuda() {
  return compileBesideAddon(emulatedCudaBuildFolder, [], 'Building the CUDA backend for the host.', buildEmulatedCuda);
}

function compileRaceCheck() {
  const message = 'Building the tests of the CUDA kernels with the thread sanitizer.';
  return compileBesideAddon(raceCheckBuildFolder, [], message, buildRaceCheck);
}

try {
  await setUp(process.argv.slice(2));
} catch (error) {
  if (error instanceof CommandError) console.error(error.output.trimEnd());
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}

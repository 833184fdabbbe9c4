// The programs and libraries outside npm that the build, the tests and the linters need: how to find each, and how to get it.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { findExecutable } from './find-executable.mjs';
import { requireCommand, runCommand } from './run-command.mjs';

/**
 * @typedef {object} Requirement
 * @property {string} what as it is named in the message to the user
 * @property {'build' | 'tests' | 'lint'} purpose
 * @property {string} debian packages
 * @property {string} fedora
 * @property {string} [brew] left out where macOS has it with the command line tools
 * @property {true} [optional] whether what needs it is skipped, and says so, where it is missing
 * @property {() => Promise<string | undefined>} findProblem undefined when it is there and new enough
 */

/** @type {readonly Requirement[]} */
export const requirements = [
  {
    what: 'a C++20 compiler (g++ 11, clang 14 or newer)',
    purpose: 'build',
    debian: 'g++',
    fedora: 'gcc-c++',
    findProblem: findCompilerProblem,
  },
  {
    what: 'CMake 3.21 or newer',
    purpose: 'build',
    debian: 'cmake',
    fedora: 'cmake',
    brew: 'cmake',
    findProblem: () => findVersionProblem('cmake', [3, 21]),
  },
  {
    what: 'make or ninja',
    purpose: 'build',
    debian: 'make',
    fedora: 'make',
    findProblem: async () => ((await isInstalled('make')) || (await isInstalled('ninja')) ? undefined : 'not found'),
  },
  {
    what: 'oneDNN with its headers (oneapi/dnnl, libdnnl)',
    purpose: 'build',
    debian: 'libdnnl-dev',
    fedora: 'onednn-devel',
    brew: 'onednn',
    findProblem: () => Promise.resolve(findHeader('oneapi/dnnl/dnnl.hpp') && findLibrary('dnnl') ? undefined : 'not found'),
  },
  {
    what: 'the C++ test framework doctest (doctest/doctest.h)',
    purpose: 'tests',
    debian: 'doctest-dev',
    fedora: 'doctest-devel',
    brew: 'doctest',
    findProblem: () => Promise.resolve(findHeader('doctest/doctest.h') ? undefined : 'not found'),
  },
  {
    what: 'the C++ library nlohmann-json (nlohmann/json.hpp)',
    purpose: 'tests',
    debian: 'nlohmann-json3-dev',
    fedora: 'json-devel',
    brew: 'nlohmann-json',
    findProblem: () => Promise.resolve(findHeader('nlohmann/json.hpp') ? undefined : 'not found'),
  },
  {
    what: 'the PostgreSQL server 13 or newer (initdb)',
    purpose: 'tests',
    debian: 'postgresql',
    fedora: 'postgresql-server',
    brew: 'postgresql',
    findProblem: () => Promise.resolve(findPostgres() === undefined ? 'not found' : undefined),
  },
  {
    what: 'the C++ libraries of gRPC and protobuf with their compilers (for the client of examples/clients/cpp)',
    purpose: 'tests',
    debian: 'protobuf-compiler-grpc libgrpc++-dev libprotobuf-dev pkgconf',
    fedora: 'grpc-devel grpc-plugins protobuf-devel pkgconf',
    brew: 'grpc pkgconf',
    optional: true,
    findProblem: findGrpcProblem,
  },
  {
    what: 'nft and ip, for networks between processes on Linux',
    purpose: 'tests',
    debian: 'nftables iproute2',
    fedora: 'nftables iproute',
    optional: true,
    // Only root may make networks.
    findProblem: () => {
      const missing = process.platform === 'linux' && process.getuid?.() === 0 ? ['nft', 'ip'].filter((name) => !findExecutable(name)) : [];
      return Promise.resolve(missing.length === 0 ? undefined : `${missing.join(' and ')} not found`);
    },
  },
  {
    what: 'clang-format 14 or newer',
    purpose: 'lint',
    debian: 'clang-format',
    fedora: 'clang-tools-extra',
    brew: 'clang-format',
    findProblem: () => findVersionProblem('clang-format', [14]),
  },
];

/**
 * Makes sure that everything for these purposes is there. Installs what is missing on Debian and its relatives when it may.
 * @param {ReadonlySet<Requirement['purpose']>} purposes
 * @param {(line: string) => void} say
 * @returns {Promise<boolean>} whether anything was installed
 * @throws {Error} with a message for the user when something stays missing
 */
export async function ensureSystemPackages(purposes, say) {
  const needed = requirements.filter(({ purpose }) => purposes.has(purpose));
  const missing = await findMissing(needed);
  if (missing.length === 0) return false;
  const asRoot = isDebianLike(readOsRelease()) ? await findRootPrefix() : undefined;
  if (asRoot === undefined) {
    refuseMissing(missing);
    return false;
  }
  // What is optional comes by itself, so that its failure is no one else's.
  for (const optional of [false, true]) {
    const packages = missing.filter(({ requirement }) => (requirement.optional === true) === optional).flatMap(debianPackages);
    if (packages.length === 0) continue;
    say(`Installing the system packages ${packages.join(', ')} with apt-get.`);
    const installed = installDebianPackages(packages, asRoot);
    await (optional ? installed.catch(() => say('They could not be installed; the tests that need them are skipped.')) : installed);
  }
  refuseMissing(await findMissing(needed));
  return true;
}

/** @param {Missing} missing */
function debianPackages({ requirement }) {
  return requirement.debian.split(' ');
}

/** @param {readonly Missing[]} missing */
function refuseMissing(missing) {
  const required = missing.filter(({ requirement }) => requirement.optional !== true);
  if (required.length > 0) throw new Error(describeMissing(required));
}

/** @typedef {{ requirement: Requirement, problem: string }} Missing */

/** @param {readonly Requirement[]} needed @returns {Promise<Missing[]>} */
async function findMissing(needed) {
  const checked = await Promise.all(needed.map(async (requirement) => ({ requirement, problem: await requirement.findProblem() })));
  return checked.flatMap(({ requirement, problem }) => (problem === undefined ? [] : [{ requirement, problem }]));
}

/**
 * One message that names everything missing and how to get it on the common systems.
 * @param {readonly Missing[]} missing
 */
export function describeMissing(missing) {
  const names = (/** @type {'debian' | 'fedora' | 'brew'} */ system) =>
    missing.flatMap(({ requirement }) => requirement[system] ?? []).join(' ');
  const brew = names('brew');
  return [
    'Missing on this machine:',
    ...missing.map(({ requirement, problem }) => `  - ${requirement.what}: ${problem}`),
    'Install what is missing and run the command again:',
    `  Debian, Ubuntu:  sudo apt-get install ${names('debian')}`,
    `  Fedora:          sudo dnf install ${names('fedora')}`,
    `  macOS:           xcode-select --install${brew === '' ? '' : ` ; brew install ${brew}`}`,
  ].join('\n');
}

/**
 * The first dotted number in the text that `program --version` prints.
 * @param {string} text
 * @returns {number[] | undefined}
 */
export function parseVersion(text) {
  return /\d+(?:\.\d+)+/.exec(text)?.[0].split('.').map(Number);
}

/** @param {readonly number[]} version @param {readonly number[]} minimum */
export function isAtLeast(version, minimum) {
  for (const [index, least] of minimum.entries()) {
    const part = version[index] ?? 0;
    if (part !== least) return part > least;
  }
  return true;
}

/** @param {string} osRelease content of /etc/os-release */
export function isDebianLike(osRelease) {
  const families = [...osRelease.matchAll(/^ID(?:_LIKE)?="?([^"\n]*)"?$/gm)].flatMap((match) => (match[1] ?? '').split(' '));
  return families.includes('debian') || families.includes('ubuntu');
}

function readOsRelease() {
  return existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
}

/** What to put before a command so that it runs as root without asking; undefined when that is not possible. */
async function findRootPrefix() {
  if (process.getuid?.() === 0) return [];
  return (await runCommand('sudo', ['-n', 'true'], { quiet: true })).code === 0 ? ['sudo', '-n'] : undefined;
}

/** The package lists are only refreshed when the packages cannot be had without. @param {readonly string[]} packages @param {readonly string[]} asRoot */
async function installDebianPackages(packages, asRoot) {
  const aptGet = (/** @type {string[]} */ ...args) => {
    const [program = '', ...rest] = [
      ...asRoot,
      'env',
      'DEBIAN_FRONTEND=noninteractive',
      'apt-get',
      '-o',
      'DPkg::Lock::Timeout=300',
      ...args,
    ];
    return /** @type {const} */ ([program, rest, { quiet: true }]);
  };
  const install = aptGet('install', '-y', '--no-install-recommends', ...packages);
  if ((await runCommand(...install)).code === 0) return;
  await requireCommand(...aptGet('update'));
  await requireCommand(...install);
}

async function findCompilerProblem() {
  for (const program of [process.env['CXX'], 'c++', 'g++', 'clang++']) {
    if (program === undefined || program === '') continue;
    const { code, output } = await runCommand(program, ['--version'], { quiet: true });
    if (code !== 0) continue;
    const minimum = output.includes('clang') ? [14] : [11];
    return describeVersion(program, output, minimum);
  }
  return 'not found';
}

/** What keeps C++ clients of gRPC from being built here. @returns {Promise<string | undefined>} */
export async function findGrpcProblem() {
  if (findExecutable('grpc_cpp_plugin') === undefined) return 'grpc_cpp_plugin was not found';
  if (findExecutable('protoc') === undefined) return 'protoc was not found';
  if (!findHeader('google/protobuf/descriptor.proto')) return 'google/protobuf/descriptor.proto was not found';
  const { code } = await runCommand('pkg-config', ['--exists', 'grpc++', 'protobuf'], { quiet: true });
  return code === 0 ? undefined : 'pkg-config does not know grpc++ and protobuf';
}

/** @param {string} program @param {readonly number[]} minimum */
async function findVersionProblem(program, minimum) {
  const { code, output } = await runCommand(program, ['--version'], { quiet: true });
  return code === 0 ? describeVersion(program, output, minimum) : 'not found';
}

/** @param {string} program @param {string} output @param {readonly number[]} minimum */
function describeVersion(program, output, minimum) {
  const version = parseVersion(output);
  if (version === undefined) return `${program} does not tell its version`;
  return isAtLeast(version, minimum) ? undefined : `${program} is version ${version.join('.')}`;
}

/** @param {string} program */
async function isInstalled(program) {
  return (await runCommand(program, ['--version'], { quiet: true })).code === 0;
}

const prefixes = [...(process.env['CMAKE_PREFIX_PATH'] ?? '').split(delimiter).filter(Boolean), '/usr', '/usr/local', '/opt/homebrew'];

/** Debian's folders for one architecture, such as x86_64-linux-gnu. @param {string} folder */
function listArchitectureFolders(folder) {
  return existsSync(folder) ? readdirSync(folder).filter((name) => name.includes('-linux-')) : [];
}

/** Debian keeps the programs of the server out of the PATH. */
function findPostgres() {
  const debian = '/usr/lib/postgresql';
  const folders = existsSync(debian) ? readdirSync(debian).map((version) => join(debian, version, 'bin')) : [];
  return findExecutable('initdb', folders) ?? findExecutable('initdb');
}

/** @param {string} name */
function findHeader(name) {
  return prefixes
    .map((prefix) => join(prefix, 'include'))
    .flatMap((folder) => ['', ...listArchitectureFolders(folder)].map((part) => join(folder, part, name)))
    .some((path) => existsSync(path));
}

/** @param {string} name */
function findLibrary(name) {
  return prefixes
    .flatMap((prefix) => [join(prefix, 'lib'), join(prefix, 'lib64')])
    .flatMap((folder) => ['', ...listArchitectureFolders(folder)].map((part) => join(folder, part)))
    .some((folder) => existsSync(join(folder, `lib${name}.so`)) || existsSync(join(folder, `lib${name}.dylib`)));
}

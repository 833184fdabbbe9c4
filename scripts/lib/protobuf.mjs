import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { listFiles } from './fingerprint.mjs';
import { requireCommand, runCommand } from './run-command.mjs';
import { workspaceRoot } from './workspace-root.mjs';

const protoFolder = join(workspaceRoot, 'proto');
const committedFolder = join(protoFolder, 'gen');
const descriptorsFile = 'secateur.binpb';
const baselineFile = join(protoFolder, 'baseline.binpb');
/** Bytes of the folder proto of a release, at most. */
const MAXIMUM_ARCHIVE = 1 << 28;
const bufProgram = join(workspaceRoot, 'node_modules', '@bufbuild', 'buf', 'bin', 'buf');

/** @param {readonly string[]} args arguments of buf, run in the folder of the .proto files */
export function runBuf(args) {
  return requireCommand(process.execPath, [bufProgram, ...args], { cwd: protoFolder, quiet: true });
}

/**
 * Generates code and descriptors from the .proto files, beside the committed ones.
 * @returns {Promise<Map<string, Buffer>>} content by path relative to proto/gen
 */
async function generate() {
  const folder = mkdtempSync(join(tmpdir(), 'secateur-proto-'));
  try {
    await runBuf(['generate', '-o', folder]);
    await runBuf(['build', '-o', join(folder, 'gen', descriptorsFile)]);
    const files = readFolder(join(folder, 'gen'));
    for (const path of files.keys()) if (onlyAnnotates(path)) files.delete(path);
    return new Map([...files, ...(await generateHttpApi(files.get(descriptorsFile) ?? Buffer.of()))]);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/**
 * What of the last release is gone or means something else: messages of buf, and routes. The last release is the newest tag vX.Y.Z of the
 * clone; where there is none, as in a shallow one, proto/baseline.binpb, which is made at a release.
 * @param {string} [folder] of the .proto files
 * @param {string} [repository] with the tags
 */
export async function findBreakingChanges(folder = protoFolder, repository = workspaceRoot) {
  const { findLostRoutes } = await import('./http-api.mjs');
  const image = mkdtempSync(join(tmpdir(), 'secateur-proto-'));
  try {
    const now = join(image, descriptorsFile);
    const release = findReleaseTag(repository);
    const before = release === undefined ? baselineFile : await buildRelease(repository, release, image);
    await runBuf(['build', folder, '-o', now]);
    const { code, output } = await runCommand(process.execPath, [bufProgram, 'breaking', folder, '--against', before], {
      quiet: true,
    });
    const changes = code === 0 ? [] : [output.trimEnd()];
    return [...changes, ...findLostRoutes(readFileSync(before), readFileSync(now))];
  } finally {
    rmSync(image, { recursive: true });
  }
}

/** The newest release that the commit at hand comes after. @param {string} repository */
function findReleaseTag(repository) {
  const { status, stdout } = spawnSync('git', ['tag', '--list', 'v[0-9]*', '--merged', 'HEAD', '--sort=-version:refname'], {
    cwd: repository,
    encoding: 'utf8',
  });
  return status === 0 ? stdout.split('\n').find((tag) => /^v\d+\.\d+\.\d+$/.test(tag)) : undefined;
}

/** The descriptors of a release. @param {string} repository @param {string} tag @param {string} folder for them */
async function buildRelease(repository, tag, folder) {
  const [files, descriptors] = [join(folder, 'release'), join(folder, 'release.binpb')];
  mkdirSync(files);
  const archive = execFileSync('git', ['archive', '--format=tar', tag, 'proto'], { cwd: repository, maxBuffer: MAXIMUM_ARCHIVE });
  execFileSync('tar', ['--extract', '--directory', files], { input: archive });
  await runBuf(['build', join(files, 'proto'), '--exclude-source-info', '-o', descriptors]);
  return descriptors;
}

/** Makes the .proto files as they are now what later ones are compared with. At a release. */
export async function writeBaseline() {
  await runBuf(['build', '--exclude-source-info', '-o', baselineFile]);
}

/** What describes descriptors and routes is not sent, so that nobody needs its types. @param {string} path */
function onlyAnnotates(path) {
  return path.startsWith('google/api/') || path === 'google/protobuf/descriptor.ts';
}

/** @param {Buffer} descriptors @returns {Promise<Map<string, Buffer>>} */
async function generateHttpApi(descriptors) {
  // Its library is not there yet when setup.mjs loads this module in a fresh clone.
  const { describeHttpApi } = await import('./http-api.mjs');
  const { routes, openapi } = describeHttpApi(descriptors);
  return new Map([...routes].concat([['openapi.json', openapi]]).map(([path, text]) => [path, Buffer.from(text)]));
}

/** @param {string} folder @returns {Map<string, Buffer>} */
function readFolder(folder) {
  return new Map(listFiles(folder).map((file) => [relative(folder, file), readFileSync(file)]));
}

/**
 * Files of proto/gen that differ from what the .proto files give now.
 * @returns {Promise<{ path: string, content: Buffer | undefined }[]>} content is undefined for a file that should not be there
 */
export async function findStaleGeneratedFiles() {
  const fresh = await generate();
  const committed = readFolder(committedFolder);
  const changed = [...fresh].filter(([path, content]) => committed.get(path)?.equals(content) !== true);
  const extra = [...committed.keys()].filter((path) => !fresh.has(path));
  return [...changed.map(([path, content]) => ({ path, content })), ...extra.map((path) => ({ path, content: undefined }))];
}

/** Brings proto/gen up to date; files that are right already are not touched. */
export async function refreshGeneratedFiles() {
  const stale = await findStaleGeneratedFiles();
  for (const { path, content } of stale) {
    const file = join(committedFolder, path);
    if (content === undefined) rmSync(file);
    else {
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, content);
    }
  }
  return stale.map(({ path }) => path);
}

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { listFiles } from './fingerprint.mjs';
import { requireCommand } from './run-command.mjs';
import { workspaceRoot } from './workspace-root.mjs';

const protoFolder = join(workspaceRoot, 'proto');
const committedFolder = join(protoFolder, 'gen');
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
    await runBuf(['build', '-o', join(folder, 'gen', 'secateur.binpb')]);
    return readFolder(join(folder, 'gen'));
  } finally {
    rmSync(folder, { recursive: true });
  }
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

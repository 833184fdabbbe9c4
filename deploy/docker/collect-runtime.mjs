// Copies what the secateur command needs to run, without what only builds and tests it:
//   node deploy/docker/collect-runtime.mjs FOLDER
// `npm ci --omit=dev` in that folder then adds the packages.
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const target = process.argv[2];
if (target === undefined) throw new Error('Usage: node deploy/docker/collect-runtime.mjs FOLDER');

/** Compiled code and descriptors; sources, declarations, source maps and the compiler's notes are for those who develop. */
const isNeeded = (/** @type {string} */ path) => !/\.(ts|map|tsbuildinfo)$/.test(path);

const { workspaces } = /** @type {{ workspaces: string[] }} */ (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')));
const folders = workspaces.flatMap((pattern) =>
  pattern.endsWith('/*') ? readdirSync(join(root, pattern.slice(0, -2))).map((name) => join(pattern.slice(0, -2), name)) : [pattern],
);

mkdirSync(target, { recursive: true });
for (const name of ['package.json', 'package-lock.json', '.npmrc']) cpSync(join(root, name), join(target, name));
for (const folder of folders) {
  for (const name of ['package.json', 'dist', 'bin', 'gen']) {
    const source = join(root, folder, name);
    if (existsSync(source)) cpSync(source, join(target, folder, name), { recursive: true, filter: isNeeded });
  }
}

/** Every fuzzer over its corpus and some mutations of it, always the same; `npm run fuzz` takes longer (docs/security.md). */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, expect, test } from '@jest/globals';
import { repositoryRoot, withTemporaryFolder } from '../support/paths.js';
import type { FuzzFigures } from './engine/fuzz.js';
import { TARGETS } from './targets/index.js';

const SECONDS = '0.5';
const SEED = '1';
const names = [...TARGETS.keys()];
const figures = new Map<string, FuzzFigures>();

/** All in one process, since its start takes longer than a target. */
beforeAll(() =>
  withTemporaryFolder(async (folder) => {
    const loader = join(repositoryRoot, 'scripts/lib/typescript-loader.mjs');
    const main = join(repositoryRoot, 'tests/fuzz/main.ts');
    const { NODE_OPTIONS: _jestOnly, ...env } = process.env;
    const { stdout } = await promisify(execFile)(process.execPath, ['--import', loader, main, SECONDS, SEED, folder, ...names], { env });
    for (const line of stdout.trim().split('\n')) {
      const { name, ...rest } = JSON.parse(line) as FuzzFigures & { readonly name: string };
      figures.set(name, rest);
    }
  }),
);

test.each(names)('%s', (name) => {
  expect(figures.get(name)).toMatchObject({ findings: [] });
  expect(figures.get(name)?.inputs).toBeGreaterThan(0);
});

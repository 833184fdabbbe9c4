import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { VERSION, worksWith } from './version.js';

const ROOT = join(import.meta.dirname, '../../..');

function readManifest(folder: string): { readonly version: string; readonly workspaces?: readonly string[] } {
  return JSON.parse(readFileSync(join(ROOT, folder, 'package.json'), 'utf8'));
}

/** Folders of the workspaces: `packages/*` stands for all in `packages`. */
function expandPattern(pattern: string): string[] {
  if (!pattern.endsWith('/*')) return [pattern];
  const parent = pattern.slice(0, -2);
  return readdirSync(join(ROOT, parent)).map((name) => `${parent}/${name}`);
}

test.each(['.', ...readManifest('.').workspaces!.flatMap(expandPattern)])('the package in %s has the version', (folder) => {
  expect(readManifest(folder).version).toBe(VERSION);
});

test.each([
  ['1.2.3', '1.2.0', true],
  ['1.2.3', '1.2.4-rc.1', true],
  ['1.2.3', '1.20.3', false],
  ['1.2.3', '2.2.3', false],
  ['0.1.0', '', false],
])('a process of version %s works with one of "%s": %s', (version, other, expected) => {
  expect(worksWith(version, other)).toBe(expected);
});

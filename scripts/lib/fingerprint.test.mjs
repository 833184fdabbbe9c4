import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { fingerprint } from './fingerprint.mjs';

/** @type {string} */
let root;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'with a space '));
  mkdirSync(join(root, 'src', 'node_modules'), { recursive: true });
  writeFileSync(join(root, 'src', 'a.cc'), 'one');
  writeFileSync(join(root, 'src', 'b.cc'), 'two');
});
afterEach(() => rmSync(root, { recursive: true }));

const take = (values = ['v20']) => fingerprint({ paths: ['src', 'absent'], values, root });

test('the same files and values give the same fingerprint', () => {
  expect(take()).toBe(take());
});

test('contents, names and values count', () => {
  const before = take();
  expect(take(['v22'])).not.toBe(before);
  writeFileSync(join(root, 'src', 'a.cc'), 'One');
  const edited = take();
  expect(edited).not.toBe(before);
  renameSync(join(root, 'src', 'b.cc'), join(root, 'src', 'c.cc'));
  expect(take()).not.toBe(edited);
});

test('text moved from one file to the next is a change', () => {
  const before = take();
  writeFileSync(join(root, 'src', 'a.cc'), 'onet');
  writeFileSync(join(root, 'src', 'b.cc'), 'wo');
  expect(take()).not.toBe(before);
});

test('what other tools put beside the sources does not count', () => {
  const before = take();
  writeFileSync(join(root, 'src', 'node_modules', 'x.js'), 'x');
  expect(take()).toBe(before);
});

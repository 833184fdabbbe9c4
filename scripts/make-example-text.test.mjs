import { execFile } from 'node:child_process';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from '@jest/globals';
import { workspaceRoot } from './lib/workspace-root.mjs';

const makeExampleText = () => promisify(execFile)(process.execPath, [join(workspaceRoot, 'scripts', 'make-example-text.mjs')]);
/** @param {string} name */
const dataPath = (name) => join(workspaceRoot, 'examples', 'data', name);

test.each([
  ['moby-dick-calibration.txt', 843_815, 1697, 'CHAPTER 1. Loomings.', 'CHAPTER 90. Heads or Tails.'],
  ['moby-dick-evaluation.txt', 344_653, 860, 'CHAPTER 91. The Pequod Meets The Rose-Bud.', 'CHAPTER 135. The Chase.--Third Day.'],
])('%s is ASCII with one paragraph a line', async (name, bytes, paragraphs, firstChapter, lastChapter) => {
  await makeExampleText();
  const text = await readFile(dataPath(name), 'utf8');
  expect(Buffer.byteLength(text)).toBe(bytes);
  expect(text).toMatch(/^[\n\x20-\x7e]*\n$/);
  const lines = text.slice(0, -1).split('\n');
  expect(lines).toHaveLength(paragraphs);
  expect(lines.filter((line) => line !== line.trim() || line.includes('  ') || line === '')).toEqual([]);
  const chapters = lines.filter((line) => line.startsWith('CHAPTER '));
  expect([chapters[0], chapters.at(-1)]).toEqual([firstChapter, lastChapter]);
});

test('a second run leaves the files alone', async () => {
  await makeExampleText();
  const before = await stat(dataPath('moby-dick-evaluation.txt'));
  expect((await makeExampleText()).stdout).toBe('');
  expect((await stat(dataPath('moby-dick-evaluation.txt'))).mtimeMs).toBe(before.mtimeMs);
});

import { expect, test } from '@jest/globals';
import { findLockedAddresses, findPrivateText } from './private-text.mjs';

// Put together here so that this file itself holds no such text.
const below = (/** @type {string[]} */ ...parts) => ['', ...parts].join('/');
const url = (/** @type {string} */ host) => `https:${below('', host)}`;

test.each([
  below('work', 'secateur'),
  below('root', '.npmrc'),
  `"${below('home', 'ada', 'models')}"`,
  below('Users', 'Ada', 'models'),
  url('npm-registry.example.com'),
  url('artifactory.example.com/api/npm'),
  url('192.168.1.20:4873'),
])('%s is found, with its line', (text) => {
  const [found] = findPrivateText(Buffer.from(`first line\nsee ${text}\n`));
  expect(found).toMatch(/^line 2: /);
});

test.each([
  'packages/work/src',
  './home/of/something',
  url('registry.npmjs.org/secateur'),
  url('arxiv.org/abs/2505.16743'),
  'http://127.0.0.1:4318',
  '${HOME}/work/models',
])('%s may stand', (text) => {
  expect(findPrivateText(Buffer.from(text))).toEqual([]);
});

test('binary files are not read as text', () => {
  expect(findPrivateText(Buffer.from(`\0 ${below('work', 'secateur')}`))).toEqual([]);
});

test('a lock file may link workspaces, but not name addresses', () => {
  const lockfile = ['"resolved": "packages/core"', `"resolved": "${url('example.com/a.tgz')}"`].join('\n');
  expect(findLockedAddresses(lockfile)).toEqual([`"resolved": "${url('example.com/a.tgz')}"`]);
});

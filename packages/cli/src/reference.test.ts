import { readFile } from 'node:fs/promises';
import { expect, test } from '@jest/globals';
import { renderReference } from './reference.js';

test('docs/cli.md is what packages/cli/scripts/write-reference.mjs writes', async () => {
  const written = await readFile(new URL('../../../docs/cli.md', import.meta.url), 'utf8');
  expect(written).toBe(renderReference());
});

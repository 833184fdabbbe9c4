import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { ERROR_CATALOGUE } from './errors.js';
import { renderErrorReference } from './error-reference.js';

test('docs/reference/errors.md is up to date (node packages/core/scripts/write-error-reference.mjs)', async () => {
  const page = await readFile(join(import.meta.dirname, '../../../docs/reference/errors.md'), 'utf8');
  expect(page).toBe(renderErrorReference());
});

test('the page tells status, retry and meaning of every reason', () => {
  const page = renderErrorReference();
  for (const [reason, { status, retryable, description }] of Object.entries(ERROR_CATALOGUE)) {
    const line = page.split('\n').find((candidate) => candidate.startsWith(`| \`${reason}\``));
    expect(line?.split('|').map((cell) => cell.trim())).toEqual([
      '',
      `\`${reason}\``,
      `\`${status}\``,
      retryable ? 'yes' : 'no',
      description,
      '',
    ]);
  }
});

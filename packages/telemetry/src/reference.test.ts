import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { ATTRIBUTES, ENGINE_SPANS, EVENTS, SPANS } from './names.js';
import { renderReference } from './reference.js';

test('docs/reference/telemetry.md is up to date (node packages/telemetry/scripts/write-reference.mjs)', async () => {
  const page = await readFile(join(import.meta.dirname, '../../../docs/reference/telemetry.md'), 'utf8');
  expect(page).toBe(renderReference());
});

test('every name is registered once', () => {
  const names = [SPANS, ENGINE_SPANS, ATTRIBUTES, EVENTS].flatMap((table) => Object.values(table).map(({ name }) => name));
  expect(new Set(names).size).toBe(names.length);
});

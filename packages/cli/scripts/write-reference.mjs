// Writes docs/cli.md from the command line itself. packages/cli/src/reference.test.ts keeps it current.
//   node packages/cli/scripts/write-reference.mjs
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { renderReference } from '../dist/reference.js';

writeFileSync(fileURLToPath(new URL('../../../docs/cli.md', import.meta.url)), renderReference());

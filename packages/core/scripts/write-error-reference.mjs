/** Writes docs/reference/errors.md from the catalogue of errors. Run after a build of this package. */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { renderErrorReference } from '../dist/error-reference.js';

const path = join(import.meta.dirname, '../../../docs/reference/errors.md');
await mkdir(dirname(path), { recursive: true });
await writeFile(path, renderErrorReference());

/** Writes docs/reference/telemetry.md from the registry of names. Run after a build of this package. */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { renderReference } from '../dist/reference.js';

const path = join(import.meta.dirname, '../../../docs/reference/telemetry.md');
await mkdir(dirname(path), { recursive: true });
await writeFile(path, renderReference());

import { readFile, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { compareRuns, requireRunReport, SecateurError, type PruneReportJson } from '@secateur/core';
import { formatComparison } from '../output/comparison.js';
import { writeResult } from '../output/write-result.js';

/** Shows two prune runs side by side. */
export async function compare(a: string, b: string, { json }: { readonly json?: boolean }): Promise<void> {
  const [first, second] = await Promise.all([readRun(a), readRun(b)]);
  const comparison = compareRuns(first, second);
  writeResult(json, comparison, () => formatComparison(comparison));
}

/** The report of a run, from its output folder or the report itself. */
async function readRun(path: string): Promise<PruneReportJson> {
  const absolute = resolve(path);
  const isFolder = await stat(absolute).then(
    (status) => status.isDirectory(),
    () => false,
  );
  const file = isFolder ? join(absolute, 'secateur.json') : absolute;
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw new SecateurError('NOT_FOUND', `${file} cannot be read; name the output folder of a finished prune run, or its secateur.json.`, {
      cause,
    });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new SecateurError('INVALID_DATA', `${file}: it is not valid JSON.`, { cause });
  }
  return requireRunReport(value, file);
}

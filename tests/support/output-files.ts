import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** SHA-256 of every file of an output folder. Of the report only what does not depend on time and place: its projections and sparsity. */
export async function hashOutput(directory: string): Promise<Record<string, string>> {
  const hashes: Record<string, string> = {};
  for (const name of (await readdir(directory)).sort()) {
    const bytes = await readFile(join(directory, name));
    const content = name === 'secateur.json' ? JSON.stringify(pickResult(bytes.toString('utf8'))) : bytes;
    hashes[name] = createHash('sha256').update(content).digest('hex');
  }
  return hashes;
}

function pickResult(text: string): unknown {
  const { sparsity, projections, calibration } = JSON.parse(text) as Record<string, unknown>;
  const timeless = (projections as Record<string, unknown>[]).map(({ seconds: _seconds, ...rest }) => rest);
  return { sparsity, projections: timeless, calibration };
}

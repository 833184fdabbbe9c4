import { createHash } from 'node:crypto';
import { homedir } from 'node:os';
import { basename, join } from 'node:path';

/** Where this machine or user makes outputs that go to stores. */
export function defaultStaging(): string {
  return join(process.env['XDG_STATE_HOME'] ?? join(homedir(), '.local', 'state'), 'secateur-staging');
}

/** Folder in which the output with that URL is made; a later attempt finds it again. */
export function stagingFolder(url: string, staging: string): string {
  return join(staging, `${basename(url)}-${createHash('sha256').update(url).digest('hex').slice(0, 16)}.partial`);
}

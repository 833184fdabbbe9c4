import { homedir } from 'node:os';
import { join } from 'node:path';
import type { SecateurError } from '@secateur/core';
import type { JobStore } from './job-store.js';
import { MemoryJobStore } from './memory-job-store.js';

export interface StoreProblems {
  /** A connection broke; the next that is needed is made anew. */
  readonly onError: (error: Error) => void;
  /** The database in this process cannot go on, and keeps it from doing anything else: it is to end at once. */
  readonly onFatal: (error: SecateurError) => never;
}

/** Where jobs are kept: `memory`, a `postgres://` URL, or a folder of this machine. */
export async function openJobStore(state: string, { onError, onFatal }: StoreProblems): Promise<JobStore> {
  if (state === 'memory') return new MemoryJobStore();
  // Loading a database takes time that a job in memory need not wait for.
  const { SqlJobStore } = await import('./sql-job-store.js');
  const { openEmbedded, openPostgres } = await import('./database.js');
  return new SqlJobStore(/^postgres(?:ql)?:\/\//.test(state) ? await openPostgres(state, onError) : await openEmbedded(state, onFatal));
}

/** The database that is configured for this machine or user. */
export function defaultState(): string {
  const { DATABASE_URL: url, XDG_STATE_HOME: stateHome } = process.env;
  return url ?? join(stateHome ?? join(homedir(), '.local', 'state'), 'secateur');
}

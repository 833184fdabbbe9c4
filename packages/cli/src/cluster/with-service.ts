import { PruningClient } from '@secateur/client';
import { ERROR_CATALOGUE, SecateurError } from '@secateur/core';
import { openConnectionSecurity, type ConnectionFlags } from '../input/security-options.js';
import { Interrupted } from '../output/exit.js';
import { LocalCluster } from './local-cluster.js';
import { withInterruption } from './with-interruption.js';

export interface ServiceOptions extends Omit<ConnectionFlags, 'endpoint'> {
  /** HOST:PORT of a running orchestrator. Without it, one is started here for the time of the command. */
  readonly endpoint?: string;
  readonly nodes?: number;
  readonly threads: number;
  readonly backend: string;
  /** Folder in which an output that goes to a store is made; the service's default when absent. */
  readonly staging?: string;
}

const CONNECT_TIMEOUT_MS = 10_000;

type Work<Result> = (client: PruningClient, signal: AbortSignal) => Promise<Result>;

/**
 * Runs work against the orchestrator at the endpoint, or against a cluster of our own that is stopped afterwards, whatever happens.
 * The signal aborts when the user stops the command or the cluster is lost.
 */
export function withService<Result>(
  { endpoint, nodes, threads, backend, staging, ...security }: ServiceOptions,
  roots: readonly string[],
  work: Work<Result>,
): Promise<Result> {
  return withInterruption(async (signal) => {
    if (endpoint !== undefined) return withClient({ endpoint, ...security }, (client) => work(client, signal), signal);
    await using cluster = await LocalCluster.start({ nodes, threads, backend, roots, staging }, signal);
    try {
      const stop = AbortSignal.any([signal, cluster.lost]);
      const client = PruningClient.connect(cluster.address);
      return await whenReady(client, () => work(client, stop), stop);
    } catch (failure) {
      const error: unknown = cluster.lost.aborted ? cluster.lost.reason : failure;
      if (isUnexpected(error)) process.stderr.write(cluster.log);
      throw error;
    }
  });
}

/** Runs work with a client that is closed afterwards. The signal ends the waiting for an answer of the service. */
export async function withClient<Result>(
  { endpoint, tlsCert, tlsKey, tlsCa, tokenFile }: ConnectionFlags,
  work: (client: PruningClient) => Promise<Result>,
  signal?: AbortSignal,
): Promise<Result> {
  const security = await openConnectionSecurity({ tlsCert, tlsKey, tlsCa, tokenFile });
  const client = PruningClient.connect(endpoint, security);
  return whenReady(client, () => work(client), signal).finally(() => security.tls?.[Symbol.dispose]());
}

async function whenReady<Result>(client: PruningClient, work: () => Promise<Result>, signal?: AbortSignal): Promise<Result> {
  try {
    await client.waitForReady(CONNECT_TIMEOUT_MS, signal === undefined ? {} : { signal });
    return await work();
  } finally {
    client.close();
  }
}

/** Whether the reason is to be looked for in the logs rather than in the request or its files. */
function isUnexpected(error: unknown): boolean {
  if (process.env['SECATEUR_DEBUG'] === '1') return true;
  if (error instanceof Interrupted) return false;
  if (!(error instanceof SecateurError)) return true;
  return ERROR_CATALOGUE[error.reason].retryable || error.reason === 'INTERNAL';
}

import { PruningClient } from '@secateur/client';
import { LocalCluster } from './local-cluster.js';

export interface ServiceOptions {
  /** HOST:PORT of a running orchestrator. Without it, one is started here for the time of the command. */
  readonly endpoint?: string;
  readonly nodes: number;
  readonly threads: number;
  readonly backend: string;
}

const CONNECT_TIMEOUT_MS = 10_000;

/** Runs work against the orchestrator at the endpoint, or against a cluster of our own that is stopped afterwards, whatever happens. */
export async function withService<Result>(
  { endpoint, ...local }: ServiceOptions,
  roots: readonly string[],
  work: (client: PruningClient) => Promise<Result>,
): Promise<Result> {
  if (endpoint !== undefined) return withClient(endpoint, work);
  await using cluster = await LocalCluster.start({ ...local, roots });
  try {
    return await withClient(cluster.address, work);
  } catch (error) {
    if (process.env['SECATEUR_DEBUG'] === '1') process.stderr.write(cluster.log);
    throw error;
  }
}

/** Runs work with a client that is closed afterwards. */
export async function withClient<Result>(endpoint: string, work: (client: PruningClient) => Promise<Result>): Promise<Result> {
  const client = PruningClient.connect(endpoint);
  try {
    await client.waitForReady(CONNECT_TIMEOUT_MS);
    return await work(client);
  } finally {
    client.close();
  }
}

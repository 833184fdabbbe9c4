import { hostname } from 'node:os';
import { SecateurError, VERSION } from '@secateur/core';
import { Resources, RpcServer, serveFetch } from '@secateur/rpc';
import { startTelemetry } from '@secateur/telemetry';
import { PruningServiceDefinition } from '@secateur/proto/pruning_service';
import { TensorServiceDefinition } from '@secateur/proto/tensor_service';
import { pino } from 'pino';
import { createPruningService } from './api/pruning-service.js';
import { JobManager } from './jobs/job-manager.js';
import { NodePool } from './scheduler/node-pool.js';

const SHUTDOWN_GRACE_MS = 10_000;

export interface OrchestratorOptions {
  /** HOST:PORT; port 0 takes a free one. */
  readonly listen: string;
  /** HOST:PORT at which kernel nodes reach this process. Defaults to the address listened on. */
  readonly advertise?: string;
  /** HOST:PORT of each kernel node. */
  readonly nodes: readonly string[];
  /** Folders that jobs may read models and data from and write results to. */
  readonly roots: readonly string[];
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
  readonly onListening?: (address: string) => void;
  /** Aborting stops the jobs and drains the service. */
  readonly signal: AbortSignal;
}

/** Serves jobs until the signal aborts. */
export async function runOrchestrator(options: OrchestratorOptions): Promise<void> {
  if (options.nodes.length === 0) throw new SecateurError('INVALID_REQUEST', 'No kernel node is configured; name at least one HOST:PORT.');
  if (options.roots.length === 0) throw new SecateurError('INVALID_REQUEST', 'No root folder is allowed; name at least one.');
  const instanceId = `${hostname()}-${process.pid}`;
  const logger = pino({ name: 'secateur-orchestrator', level: options.logLevel }, pino.destination(2));
  const telemetry = await startTelemetry({ serviceName: 'secateur-orchestrator', serviceVersion: VERSION, instanceId });
  const pool = new NodePool(options.nodes, logger);
  const resources = new Resources();
  let address = '';
  const jobs = new JobManager({
    pool,
    resources,
    recorder: telemetry.recorder,
    logger,
    roots: options.roots,
    tensorEndpoint: () => options.advertise ?? address,
  });
  const server = new RpcServer({ logger });
  server.addService(PruningServiceDefinition, createPruningService(jobs, pool));
  server.addService(
    TensorServiceDefinition,
    serveFetch((resource) => resources.find(resource)),
  );
  try {
    const { host, port } = await server.listen(options.listen);
    address = `${host}:${port}`;
    pool.start();
    server.setServing(true);
    logger.info({ address, nodes: options.nodes }, 'listening');
    options.onListening?.(address);
    await new Promise<void>((resolve) => {
      if (options.signal.aborted) resolve();
      else options.signal.addEventListener('abort', () => resolve(), { once: true });
    });
    logger.info('draining');
    await jobs.stop();
  } finally {
    await server.shutdown({ graceMs: SHUTDOWN_GRACE_MS });
    pool.stop();
    await telemetry.shutdown();
  }
}

import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { auditActions, createServiceLogger, openServiceSecurity, type ServiceSecurityOptions, type TokenOptions } from '@secateur/access';
import { SecateurError, VERSION } from '@secateur/core';
import type { HttpServer, HttpServerOptions } from '@secateur/http';
import { Resources, RpcServer, serveFetch } from '@secateur/rpc';
import { startTelemetry } from '@secateur/telemetry';
import { PruningServiceDefinition } from '@secateur/proto/pruning_service';
import { PruningServiceRoutes } from '@secateur/proto/pruning_service_routes';
import { TensorServiceDefinition } from '@secateur/proto/tensor_service';
import type { Logger } from 'pino';
import { createPruningService } from './api/pruning-service.js';
import { JobManager } from './jobs/job-manager.js';
import { Tenants } from './jobs/tenants.js';
import { runPruneJobController, type ControlledNamespaces } from './k8s/controller/prune-job-controller.js';
import { EndpointSliceDiscovery } from './k8s/endpoint-slice-discovery.js';
import { observeOrchestrator } from './observe-orchestrator.js';
import { OutputPlaces } from './output/output-places.js';
import { DnsDiscovery } from './scheduler/dns-discovery.js';
import { StaticDiscovery, type NodeDiscovery, type NodeSource } from './scheduler/node-discovery.js';
import { NodePool } from './scheduler/node-pool.js';
import { openJobStore } from './store/open-job-store.js';

/** Far above any spec; two bytes can say a message that takes a hundred. */
const MAXIMUM_REQUEST_BYTES = 4 << 20;
const SHUTDOWN_GRACE_MS = 10_000;
/** Long texts take their time to be read as tokens. */
const PLAN_TIMEOUT_MS = 600_000;
/** Who calls is asked at the beginning, so a stream must not outlast what was believed then by much. Watchers call again. */
const MAXIMUM_CALL_MS = 3_600_000;

export interface OrchestratorOptions extends ServiceSecurityOptions, TokenOptions {
  /** HOST:PORT; port 0 takes a free one. */
  readonly listen: string;
  /** HOST:PORT for HTTP: the same methods as JSON, health and metrics; port 0 takes a free one. None when absent. */
  readonly httpListen?: string;
  /** HOST:PORT for HTTP: health and metrics alone; port 0 takes a free one. None when absent. */
  readonly metricsListen?: string;
  /** HOST:PORT at which kernel nodes reach this process. Defaults to the address listened on. */
  readonly advertise?: string;
  /** HOST:PORT that answers health checks only, in plain text. None when left out. */
  readonly healthListen?: string;
  /** Where the kernel nodes are told from. */
  readonly nodes: readonly NodeSource[];
  /** Folders, and prefixes of stores (`s3://BUCKET/PREFIX`), that jobs may read models and data from and write results to. */
  readonly roots: readonly string[];
  /** Where jobs are kept: `memory`, a `postgres://` URL, or a folder of this machine. */
  readonly state: string;
  /** Folder in which results that go to stores are made. */
  readonly staging: string;
  /** Jobs that are run at once. */
  readonly concurrentJobs: number;
  /** A job whose orchestrator has not been heard of for so long goes to another one. */
  readonly leaseMs: number;
  /** How long jobs are kept after their end. */
  readonly keepJobsMs: number;
  /** File with the rules of tenants. */
  readonly tenants?: string;
  /** Whose PruneJobs are made jobs, by one orchestrator of the store at a time. None when left out. */
  readonly controller?: ControlledNamespaces;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
  /** Addresses of gRPC and, where it was asked for, of HTTP. */
  readonly onListening?: (address: string, httpAddress: string | undefined) => void;
  /** Aborting stops the jobs and drains the service. */
  readonly signal: AbortSignal;
}

/** Serves jobs until the signal aborts. */
export async function runOrchestrator(options: OrchestratorOptions): Promise<void> {
  if (options.nodes.length === 0) throw new SecateurError('INVALID_REQUEST', 'No kernel node is configured; name at least one HOST:PORT.');
  if (options.roots.length === 0) throw new SecateurError('INVALID_REQUEST', 'No root folder is allowed; name at least one.');
  const instanceId = `${hostname()}-${process.pid}`;
  const logger = createServiceLogger({ name: 'secateur-orchestrator', level: options.logLevel });
  using security = await openServiceSecurity(options, logger, options);
  const tenants = options.tenants === undefined ? Tenants.alike(options.roots) : await Tenants.read(options.tenants, options.roots);
  const store = await openJobStore(options.state, {
    onError: (error) => logger.warn({ err: error }, 'a connection to the job database broke'),
    onFatal: (error) => {
      logger.error({ reason: error.reason, message: error.message }, 'the job database cannot go on; start the orchestrator again');
      process.exit(1);
    },
  });
  const telemetry = await startTelemetry(
    { serviceName: 'secateur-orchestrator', serviceVersion: VERSION, instanceId },
    { metrics: options.httpListen !== undefined || options.metricsListen !== undefined, logger },
  );
  const pool = new NodePool(
    options.nodes.map((source) => discover(source, logger)),
    logger,
    security.tls,
  );
  const resources = new Resources();
  const audit = auditActions(logger);
  // One that is started anew under the same process id has no leases of the one before.
  const name = `${instanceId}-${randomUUID().slice(0, 8)}`;
  let address = '';
  const jobs = new JobManager({
    store,
    name,
    tenants,
    outputs: new OutputPlaces(options.staging),
    slots: options.concurrentJobs,
    leaseMs: options.leaseMs,
    keepJobsMs: options.keepJobsMs,
    pool,
    resources,
    recorder: telemetry.recorder,
    logger,
    audit,
    tensorEndpoint: () => options.advertise ?? address,
  });
  const server = new RpcServer({ ...security.server, maximumRequestBytes: MAXIMUM_REQUEST_BYTES });
  const service = createPruningService(jobs, pool);
  server.addService(PruningServiceDefinition, service, MAXIMUM_CALL_MS);
  server.addService(
    TensorServiceDefinition,
    serveFetch((resource) => resources.find(resource)),
  );
  const { httpListen, metricsListen } = options;
  // Only processes that serve HTTP pay for loading it.
  const openHttp = async (options: Omit<HttpServerOptions, 'readMetrics'>): Promise<HttpServer> =>
    new (await import('@secateur/http')).HttpServer({ ...options, readMetrics: () => telemetry.readMetrics() });
  const http = httpListen === undefined ? undefined : await openHttp(security.server);
  // Health and metrics are for everybody.
  const metrics = metricsListen === undefined ? undefined : await openHttp({ logger });
  http?.addService(PruningServiceDefinition, PruningServiceRoutes, service, { planJob: PLAN_TIMEOUT_MS });
  observeOrchestrator(store, pool);
  try {
    const { host, port } = await server.listen(options.listen);
    const health = options.healthListen && (await server.listenForHealth(options.healthListen));
    address = `${host}:${port}`;
    pool.start();
    const httpAddress = httpListen === undefined ? undefined : await http?.listen(httpListen);
    const metricsAddress = metricsListen === undefined ? undefined : await metrics?.listen(metricsListen);
    jobs.start();
    for (const one of [server, http, metrics]) one?.setServing(true);
    logger.info({ address, health, httpAddress, metricsAddress, nodes: options.nodes }, 'listening');
    options.onListening?.(address, httpAddress);
    const { controller: namespaces, leaseMs, signal } = options;
    const controlling = namespaces && runPruneJobController({ namespaces, jobs, identity: name, leaseMs, logger, audit }, signal);
    await new Promise<void>((resolve) => {
      if (options.signal.aborted) resolve();
      else options.signal.addEventListener('abort', () => resolve(), { once: true });
    });
    logger.info('draining');
    // Jobs that are let go may wait for nodes that do not answer; what is new is refused meanwhile.
    for (const one of [server, http, metrics]) one?.setServing(false);
    await Promise.all([controlling, jobs.stop()]);
  } finally {
    const grace = { graceMs: SHUTDOWN_GRACE_MS };
    await Promise.all([server.shutdown(grace), http?.shutdown(grace), metrics?.shutdown(grace)]);
    pool.stop();
    await store.close();
    await telemetry.shutdown();
  }
}

function discover(source: NodeSource, logger: Logger): NodeDiscovery {
  switch (source.kind) {
    case 'address':
      return new StaticDiscovery(source.address);
    case 'dns':
      return new DnsDiscovery(source, logger);
    case 'endpointslices':
      return new EndpointSliceDiscovery(source, logger);
  }
}

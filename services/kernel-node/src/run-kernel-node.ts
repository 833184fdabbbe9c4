import { hostname, totalmem } from 'node:os';
import { createServiceLogger, openServiceSecurity, type ServiceSecurityOptions } from '@secateur/access';
import { SecateurError, VERSION } from '@secateur/core';
import { openEngine, type Engine, type Placement } from '@secateur/native';
import { connect, Resources, RpcServer, serveFetch } from '@secateur/rpc';
import { observe, startTelemetry } from '@secateur/telemetry';
import { KernelServiceDefinition } from '@secateur/proto/kernel_service';
import { TensorServiceDefinition } from '@secateur/proto/tensor_service';
import { TraceServiceDefinition } from '@secateur/proto/trace_service';
import { createKernelService } from './api/kernel-service.js';
import { createTraceService } from './api/trace-service.js';
import { toWireEngine, withServiceErrors, type ProductSpeeds } from './engine/wire-types.js';
import { resolvePlacement, type PlacementOptions } from './machine/resolve-placement.js';
import type { ConnectToSource } from './session/fetch-options.js';
import type { SessionNode } from './session/kernel-session.js';
import { SessionRegistry } from './session/session-registry.js';
import { isOutOfStep } from './session/shard-peers.js';
import { SharedVolume } from './session/shared-volume.js';

/** Longer than any single engine call takes to notice that it is cancelled. */
const SHUTDOWN_GRACE_MS = 10_000;
/** Share of the machine's (or container's) memory the engine may use when no budget is given. */
const DEFAULT_MEMORY_SHARE = 0.8;

export interface KernelNodeOptions extends PlacementOptions, ServiceSecurityOptions {
  /** HOST:PORT; port 0 takes a free one. */
  readonly listen: string;
  /** HOST:PORT for HTTP: health and metrics; port 0 takes a free one. None when absent. */
  readonly metricsListen?: string;
  /** For reports and traces. Defaults to the host name and process id. */
  readonly name?: string;
  readonly backend: 'auto' | 'cpu' | 'cuda';
  /** 0 = one per processor, of those named where some are. */
  readonly threads: number;
  /** What all sessions together may hold. Defaults to 80 % of the memory of the machine or container. */
  readonly memoryBytes?: number;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
  /** HOST:PORT that answers health checks only, in plain text. None when left out. */
  readonly healthListen?: string;
  /** Folders shared with orchestrators, from which checkpoints are read instead of being pulled. */
  readonly roots: readonly string[];
  /** How long the steps that run when the node drains may take; 0 ends them at once. */
  readonly drainTimeoutMs: number;
  /** Addresses of gRPC and, where it was asked for, of HTTP. */
  readonly onListening?: (address: string, httpAddress: string | undefined) => void;
  /** Aborting drains the node: it reports NOT_SERVING, lets running steps end, frees sessions. */
  readonly signal: AbortSignal;
}

/** Serves the engine of this machine until the signal aborts. */
export async function runKernelNode(options: KernelNodeOptions): Promise<void> {
  const placement = await resolvePlacement(options);
  checkThreads(options.threads, placement);
  const name = options.name ?? `${hostname()}-${process.pid}`;
  const logger = createServiceLogger({ name: 'secateur-node', level: options.logLevel, base: { node: name } });
  using security = await openServiceSecurity(options, logger);
  const identity = { serviceName: 'secateur-kernel-node', serviceVersion: VERSION, instanceId: name };
  const telemetry = await startTelemetry(identity, { metrics: options.metricsListen !== undefined, logger });
  const memoryBudgetBytes = options.memoryBytes ?? defaultMemoryBytes();
  const engine = withServiceErrors(() => openEngine({ backend: options.backend, threads: options.threads, memoryBudgetBytes, placement }));
  const description = toWireEngine(engine.description, placement, await measureSpeeds(engine));
  const resources = new Resources();
  const connectToSource: ConnectToSource = (address) => connect(address, { kind: 'bulk', tls: security.tls });
  const node: SessionNode = {
    connectToSource,
    resources,
    volume: new SharedVolume(options.roots),
    onPeerGivenUp: (given) => {
      const { error, ...shard } = given;
      const level = isOutOfStep(given) ? 'info' : 'warn';
      logger[level]({ ...shard, reason: error.reason, message: error.message }, 'pulls the rest of a shard from the orchestrator');
    },
  };
  const sessions = new SessionRegistry(engine, node, (sessionId) => logger.warn({ sessionId }, 'closed an abandoned session'));
  const server = new RpcServer(security.server);
  const memory = { engine, memoryBudgetBytes, idleBytes: process.memoryUsage.rss() };
  server.addService(KernelServiceDefinition, createKernelService({ name, description, sessions, memory }));
  server.addService(
    TensorServiceDefinition,
    serveFetch((resource) => resources.find(resource)),
  );
  server.addService(TraceServiceDefinition, createTraceService(telemetry.recorder));
  observe('MEMORY_USED', () => [{ value: engine.memoryUsedBytes() }]);
  observe('MEMORY_BUDGET', () => [{ value: memoryBudgetBytes }]);
  observe('SESSIONS', () => [{ value: sessions.size }]);
  // Only processes that serve HTTP pay for loading it.
  const http =
    options.metricsListen === undefined
      ? undefined
      : new (await import('@secateur/http')).HttpServer({ logger, readMetrics: () => telemetry.readMetrics() });
  try {
    const { host, port } = await server.listen(options.listen);
    const health = options.healthListen && (await server.listenForHealth(options.healthListen));
    const metricsAddress = options.metricsListen === undefined ? undefined : await http?.listen(options.metricsListen);
    server.setServing(true);
    http?.setServing(true);
    const address = `${host}:${port}`;
    logger.info({ address, health, metricsAddress, engine: description, memoryBudgetBytes }, 'listening');
    options.onListening?.(address, metricsAddress);
    await aborted(options.signal);
    logger.info({ sessions: sessions.size }, 'draining');
    server.setServing(false);
    http?.setServing(false);
    await sessions.drain(options.drainTimeoutMs);
  } finally {
    await Promise.all([server.shutdown({ graceMs: SHUTDOWN_GRACE_MS }), http?.shutdown({ graceMs: SHUTDOWN_GRACE_MS })]);
    await sessions.closeAll();
    await engine.close();
    await telemetry.shutdown();
  }
}

async function measureSpeeds(engine: Engine): Promise<ProductSpeeds> {
  const speedOf = async (compute: 'f32' | 'bf16'): Promise<number> =>
    (await engine.measureProductSpeed({ compute, hiddenStates: 'f32' })).value;
  return { productSpeed: await speedOf('f32'), bf16ProductSpeed: await speedOf('bf16') };
}

/** Two threads on one processor would only take turns. */
function checkThreads(threads: number, placement: Placement | undefined): void {
  if (placement === undefined || threads <= placement.cpus.length) return;
  const description = `is ${threads}, and ${placement.cpus.length} processors are named; each thread takes one`;
  throw new SecateurError('INVALID_REQUEST', `The threads cannot be placed: --threads ${description}.`, {
    violations: [{ field: '--threads', description }],
  });
}

function defaultMemoryBytes(): number {
  const limit = process.constrainedMemory();
  const memory = limit > 0 && limit < totalmem() ? limit : totalmem();
  return Math.floor(memory * DEFAULT_MEMORY_SHARE);
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

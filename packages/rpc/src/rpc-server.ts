import { logVerbosity, Server, ServerCredentials, setLogVerbosity, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { SecateurError } from '@secateur/core';
import type { HealthImplementation } from 'grpc-health-check';
import type { AccessControl, EndedCall } from './access.js';
import { CallGuard } from './call-guard.js';
import { SECURE_SERVER_OPTIONS, SERVER_OPTIONS } from './channel-options.js';
import type { CallContext, ServiceDefinition, ServiceImplementation } from './definition.js';
import { explain } from './explain-failure.js';
import { parseHostPort, type HostPort } from './host-port.js';
import { checkListenAddress } from './listen-address.js';
import type { RpcLogger } from './logger.js';
import { createMethodCodec } from './method-codec.js';
import { addReflection } from './reflection.js';
import { ServerCalls } from './server-calls.js';
import type { TlsCredentials } from './tls/tls-credentials.js';

export interface RpcServerOptions {
  /** Where errors that are defects go, with their stack. */
  readonly logger?: RpcLogger;
  /** Certificates. Without them everything is sent in the clear. */
  readonly tls?: TlsCredentials;
  /** Listens where others reach it though nothing tells callers apart. Defaults to false. */
  readonly insecure?: boolean;
  /** Who may call. Without it everybody may, as an administrator. */
  readonly access?: AccessControl;
  /** What a request may have. Defaults to 16 MiB. */
  readonly maximumRequestBytes?: number;
  /** Told of every call of a service, health and reflection aside, when it is over. */
  readonly onCallEnd?: (call: EndedCall) => void;
}

/**
 * A gRPC server with health and reflection. It serves calls as soon as it listens, and says so to health checks once it is told to.
 * Calls without a deadline are refused.
 */
export class RpcServer {
  private readonly guard: CallGuard;
  private readonly server: Server;
  private readonly calls: ServerCalls;
  private readonly tls: TlsCredentials | undefined;
  private readonly insecure: boolean;
  private readonly serviceNames: string[] = [];
  private readonly healthServer = new Server(SERVER_OPTIONS);
  private health: HealthImplementation | undefined;
  private address: HostPort = { host: '', port: 0 };

  constructor({ logger, tls, insecure = false, access, maximumRequestBytes, onCallEnd }: RpcServerOptions = {}) {
    this.guard = new CallGuard(access, (cause, method) => explain(cause, method, logger));
    const options = tls === undefined ? SERVER_OPTIONS : SECURE_SERVER_OPTIONS;
    const limit = maximumRequestBytes === undefined ? {} : { 'grpc.max_receive_message_length': maximumRequestBytes };
    this.server = new Server({ ...options, ...limit, interceptors: [this.guard.interceptor] });
    this.calls = new ServerCalls(
      () => this.address,
      (metadata) => this.guard.callerOf(metadata),
      logger,
      onCallEnd,
    );
    this.tls = tls;
    this.insecure = insecure;
  }

  /** Before `listen`. Calls that take longer than `maximumCallMs` end with DEADLINE_EXCEEDED, whatever deadline their callers have given them. */
  addService<Definition extends ServiceDefinition>(
    definition: Definition,
    implementation: ServiceImplementation<Definition>,
    maximumCallMs?: number,
  ): void {
    const codecs = Object.entries(definition.methods).map(([name, method]) => [name, createMethodCodec(definition, method)] as const);
    const handlers: UntypedServiceImplementation = {};
    for (const [name, codec] of codecs) {
      // The keys are the same; what type belongs to which key is no longer known here.
      const handler = implementation[name] as (request: unknown, context: CallContext) => never;
      handlers[name] = codec.responseStream
        ? this.calls.serveStream(codec, handler, maximumCallMs)
        : this.calls.serveUnary(codec, handler, maximumCallMs);
    }
    this.server.addService(Object.fromEntries(codecs), handlers);
    this.serviceNames.push(definition.fullName);
  }

  /**
   * Listens at HOST:PORT, port 0 for any free one, and returns where. Refuses addresses that others reach while nothing tells them apart,
   * unless it is told to be insecure.
   */
  async listen(address: string): Promise<HostPort> {
    const { host } = parseHostPort(address);
    checkListenAddress(address, { verifiesCallers: this.tls?.verifiesCallers === true, insecure: this.insecure });
    const serverCredentials = this.tls?.serverCredentials() ?? ServerCredentials.createInsecure();
    // What the library prints it also throws, and that is told once.
    if (process.env['GRPC_VERBOSITY'] === undefined) setLogVerbosity(logVerbosity.NONE);
    const { HealthImplementation } = await import('grpc-health-check');
    this.health = new HealthImplementation({ '': 'SERVING' });
    this.setServing(false);
    for (const server of [this.server, this.healthServer]) this.health.addToServer(server);
    addReflection(this.server, this.serviceNames);
    this.address = { host, port: await bind(this.server, address, serverCredentials) };
    return this.address;
  }

  /**
   * Answers health checks at HOST:PORT too, in plain text and nothing else: probes of Kubernetes know no certificates. After `listen`, as the
   * states are the same.
   */
  async listenForHealth(address: string): Promise<HostPort> {
    const { host } = parseHostPort(address);
    return { host, port: await bind(this.healthServer, address, ServerCredentials.createInsecure()) };
  }

  /** Tells health checks of each service whether new work is welcome. The server as a whole ('') lives as long as it listens. */
  setServing(serving: boolean): void {
    for (const name of this.serviceNames) this.health?.setStatus(name, serving ? 'SERVING' : 'NOT_SERVING');
  }

  /**
   * Reports NOT_SERVING, aborts the signals of all calls, which end with UNAVAILABLE or with the answer they had, and closes.
   * Calls that still run after the grace are cut off.
   */
  async shutdown({ graceMs }: { readonly graceMs: number }): Promise<void> {
    this.setServing(false);
    this.health?.setStatus('', 'NOT_SERVING');
    const error = new SecateurError('UNAVAILABLE', 'The server is shutting down; try another one or later.');
    this.calls.stop(error);
    this.guard.endInfrastructureCalls(error);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => this.server.forceShutdown(), graceMs);
      this.server.tryShutdown(() => {
        clearTimeout(timer);
        resolve();
      });
    });
    this.healthServer.forceShutdown();
  }
}

/** The port, which the system chose where the address names 0. */
function bind(server: Server, address: string, credentials: ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error, port) => {
      if (error === null) resolve(port);
      else reject(cannotListen(address, error));
    });
  });
}

/** What the library says has the codes of the system in it: those that are known are told in words that say what to do. */
function cannotListen(address: string, cause: Error): SecateurError {
  const known = Object.entries(bindFailures).find(([code]) => cause.message.includes(code));
  if (known === undefined) return new SecateurError('FAILED_PRECONDITION', `Cannot listen at ${address}.`, { cause });
  const [code, [reason, remedy]] = known;
  return new SecateurError('FAILED_PRECONDITION', `Cannot listen at ${address}: ${reason} (${code}). ${remedy}`);
}

const bindFailures = {
  EADDRINUSE: ['another process listens there', 'Stop it, or choose another port.'],
  EADDRNOTAVAIL: ['this machine does not have that address', 'Choose one of its own.'],
  EACCES: ['that port is not permitted', 'Choose one from 1024 on.'],
} as const;

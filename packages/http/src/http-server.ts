import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { context as contextApi, propagation } from '@opentelemetry/api';
import { SecateurError } from '@secateur/core';
import {
  ANYBODY,
  explain,
  explainFailure,
  parseHostPort,
  isLoopback,
  type AccessControl,
  type CallContext,
  type EndedCall,
  type RpcLogger,
  type ServiceDefinition,
  type ServiceImplementation,
  type TlsCredentials,
} from '@secateur/rpc';
import { recordSeconds } from '@secateur/telemetry';
import findMyWay from 'find-my-way';
import { StreamAnswer } from './answer-stream.js';
import { readOpenApi } from './descriptors.js';
import { HttpError, send, sendError } from './http-errors.js';
import { readBody } from './read-body.js';
import { createRoutes, type MethodRoute, type RouteTable, type Timeouts } from './service-routes.js';
import { chooseFormat } from './stream-format.js';

const TEXT = 'text/plain; charset=utf-8';
const PROMETHEUS_TEXT = 'text/plain; version=0.0.4; charset=utf-8';
const VERBS = ['DELETE', 'GET', 'PATCH', 'POST', 'PUT'] as const;

export interface HttpServerOptions {
  /** What /metrics answers. */
  readonly readMetrics: () => Promise<string>;
  /** Who may call, by the header Authorization. Without it everybody may, as an administrator. */
  readonly access?: AccessControl;
  /** With it the server speaks HTTPS only. Callers are known by their tokens, not by certificates. */
  readonly tls?: TlsCredentials;
  /** Listens where others reach it though everything is sent in the clear, or nobody is asked who they are. Defaults to false. */
  readonly insecure?: boolean;
  /** Told of every call of a method when it is over. */
  readonly onCallEnd?: (call: EndedCall) => void;
  /** Where errors that are defects go, with their stack. */
  readonly logger?: RpcLogger;
}

type Answer = (exchange: Exchange, parameters: Readonly<Record<string, string | undefined>>) => Promise<void> | void;

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

/** An HTTP server beside a gRPC one: methods of its services as JSON, health and metrics. */
export class HttpServer {
  private readonly router = findMyWay({ caseSensitive: true });
  private readonly server: Server;
  private readonly identity: Disposable | undefined;
  private readonly running = new Map<AbortController, ServerResponse>();
  private serving = false;
  private hasServices = false;
  /** Whether whoever is at this machine may call, without telling who that is, and no certificate says whom a browser has reached. */
  private trustsMachine = false;
  private stopped: SecateurError | undefined;

  constructor(private readonly options: HttpServerOptions) {
    const listener = (request: IncomingMessage, response: ServerResponse): void => this.dispatch({ request, response });
    if (options.tls === undefined) {
      this.server = createServer(listener);
    } else {
      const server = createTlsServer({ minVersion: 'TLSv1.2' }, listener);
      this.identity = options.tls.followIdentity(({ certificate, privateKey }) =>
        server.setSecureContext({ cert: certificate, key: privateKey, minVersion: 'TLSv1.2' }),
      );
      this.server = server;
    }
    this.answer('GET', '/healthz', ({ response }) => send(response, 200, TEXT, 'ok\n'));
    this.answer('GET', '/readyz', ({ response }) =>
      this.serving ? send(response, 200, TEXT, 'ok\n') : send(response, 503, TEXT, 'Not serving.\n'),
    );
    this.answer('GET', '/metrics', async ({ response }) => send(response, 200, PROMETHEUS_TEXT, await options.readMetrics()));
  }

  /** Serves the methods of a service with the handlers that gRPC calls, and the document that describes them. Before `listen`. */
  addService<Definition extends ServiceDefinition>(
    definition: Definition,
    routes: RouteTable<Definition>,
    implementation: ServiceImplementation<Definition>,
    timeoutsMs: Timeouts<Definition> = {},
  ): void {
    for (const route of createRoutes(definition, routes, implementation, timeoutsMs)) {
      this.answer(route.verb, toPattern(route.path), (exchange, parameters) => this.call(route, exchange, parameters));
    }
    this.hasServices = true;
    const document = readOpenApi();
    this.answer('GET', '/openapi.json', ({ response }) => send(response, 200, 'application/json', document));
  }

  /**
   * Listens at HOST:PORT, port 0 for any free one, and returns the HOST:PORT it has. Methods are only served to this machine, unless there are
   * certificates and callers tell who they are, or it is told to be insecure; health and metrics to everybody.
   */
  async listen(address: string): Promise<string> {
    const { host, port } = parseHostPort(address);
    const { tls, access, insecure = false } = this.options;
    if (this.hasServices && !isLoopback(host) && !insecure && (tls === undefined || access === undefined)) {
      const description =
        'without --tls-cert and tokens others could call anything and read all that is sent; give them, listen at 127.0.0.1, or say --insecure where the network keeps everybody else out';
      throw new SecateurError('INVALID_REQUEST', `Will not listen at ${address} for HTTP: ${description}.`, {
        violations: [{ field: '--http-listen', description }],
      });
    }
    this.trustsMachine = isLoopback(host) && access === undefined && tls === undefined && !insecure;
    this.server.listen(port, host.replace(/^\[(.*)\]$/, '$1'));
    try {
      await once(this.server, 'listening');
    } catch (cause) {
      const problem = cause instanceof Error ? cause.message : String(cause);
      throw new SecateurError('FAILED_PRECONDITION', `Cannot listen at ${address} for HTTP: ${problem}`, { cause });
    }
    return `${host}:${(this.server.address() as AddressInfo).port}`;
  }

  /** Tells /readyz whether new work is welcome. */
  setServing(serving: boolean): void {
    this.serving = serving;
  }

  /** Is no longer ready, ends all calls with UNAVAILABLE and closes. Connections that are still open after the grace are cut off. */
  async shutdown({ graceMs }: { readonly graceMs: number }): Promise<void> {
    this.setServing(false);
    this.identity?.[Symbol.dispose]();
    this.stopped = new SecateurError('UNAVAILABLE', 'The server is shutting down; try another one or later.');
    for (const [controller, response] of this.running) {
      response.shouldKeepAlive = false;
      controller.abort(this.stopped);
    }
    if (!this.server.listening) return;
    const timer = setTimeout(() => this.server.closeAllConnections(), graceMs);
    await new Promise<void>((resolve) => {
      this.server.close(() => resolve());
      this.server.closeIdleConnections();
    });
    clearTimeout(timer);
  }

  private answer(verb: (typeof VERBS)[number], path: string, answer: Answer): void {
    this.router.on(verb, path, () => undefined, { answer });
  }

  private dispatch(exchange: Exchange): void {
    const { method = '', url = '' } = exchange.request;
    const [path = ''] = url.split('?', 1);
    const route = this.router.find(method as findMyWay.HTTPMethod, path);
    const serve = async (): Promise<void> => {
      if (route === null) throw this.unknownRoute(exchange, method, path);
      if (method !== 'GET') refuseOtherSites(exchange.request);
      const { answer } = route.store as { readonly answer: Answer };
      await answer(exchange, route.params);
    };
    serve().catch((cause: unknown) => {
      endWith(exchange, explain(cause, `${method} ${path}`, this.options.logger));
    });
  }

  private unknownRoute({ response }: Exchange, method: string, path: string): HttpError {
    const verbs = VERBS.filter((verb) => this.router.find(verb, path) !== null);
    if (verbs.length === 0) return new HttpError(404, 'NOT_FOUND', `There is nothing at ${path}; see GET /openapi.json.`);
    response.setHeader('Allow', verbs.join(', '));
    return new HttpError(405, 'INVALID_REQUEST', `${path} is there for ${verbs.join(', ')}, not for ${method}.`);
  }

  /** Calls a method: its signal aborts when the client is gone, when the deadline is over, and when the server shuts down. */
  private async call(route: MethodRoute, exchange: Exchange, parameters: Readonly<Record<string, string | undefined>>): Promise<void> {
    const { request, response } = exchange;
    const startedMs = performance.now();
    const deadline = new Date(Date.now() + route.timeoutMs);
    const controller = new AbortController();
    const { signal } = controller;
    const abort = (reason: 'CANCELLED' | 'DEADLINE_EXCEEDED', message: string): void =>
      controller.abort(new SecateurError(reason, message));
    const timer = setTimeout(() => abort('DEADLINE_EXCEEDED', `The deadline of ${route.fullName} is over.`), route.timeoutMs);
    this.running.set(controller, response);
    if (this.stopped !== undefined) controller.abort(this.stopped);
    response.once('close', () => {
      clearTimeout(timer);
      this.running.delete(controller);
      abort('CANCELLED', `The caller of ${route.fullName} is gone.`);
      recordSeconds('HTTP_SERVER_DURATION', (performance.now() - startedMs) / 1e3, {
        'http.request.method': route.verb,
        'http.route': route.path,
        'http.response.status_code': response.statusCode,
      });
    });
    const peer = peerOf(request);
    let ended: ((outcome: EndedCall['outcome'], answer?: unknown) => void) | undefined;
    const stream = route.streams ? new StreamAnswer(response, chooseFormat(request.headers.accept), signal) : undefined;
    try {
      if (this.trustsMachine) refuseOtherNames(request);
      const { authorization } = request.headers;
      const caller = await (this.options.access?.admit({ method: route.fullName, peer, certificate: undefined, authorization }) ?? ANYBODY);
      const lastEventId = firstOf(request.headers['last-event-id']);
      const message = route.parse({ path: parameters, query: queryOf(request), body: await bodyOf(route, request), lastEventId });
      const call = { method: route.fullName, peer, caller, request: message };
      ended = (outcome, answer) => this.options.onCallEnd?.({ ...call, response: answer, outcome });
      const context: CallContext = { signal, peer, caller, method: route.fullName, deadline };
      signal.throwIfAborted();
      const parent = propagation.extract(contextApi.active(), request.headers);
      await contextApi.with(parent, async () => {
        if (stream === undefined) {
          const { json, answer } = await untilAborted(route.unary(message, context), signal);
          send(response, 200, 'application/json', json);
          ended?.('OK', answer);
        } else {
          await stream.writeAll(route.stream(message, context), lastEventId !== undefined);
          ended?.('OK');
        }
      });
    } catch (cause) {
      const error = explainFailure(cause, route.fullName, signal, this.options.logger);
      if (stream?.fail(error) !== true) endWith(exchange, error);
      ended?.(error.reason);
    }
  }
}

/** `/v1/jobs/{job_id}:cancel` as the router writes it: a parameter ends before a colon, and colons that are meant are doubled. */
function toPattern(path: string): string {
  return path.replaceAll(':', '::').replaceAll(/\{(\w+)\}/g, ':$1(^[^/:]+)');
}

/** A page of another site must not do anything in the name of who looks at it. */
function refuseOtherSites({ headers }: IncomingMessage): void {
  if (headers.origin === undefined) return;
  if (URL.canParse(headers.origin) && new URL(headers.origin).host === headers.host) return;
  throw new SecateurError('PERMISSION_DENIED', `Pages of ${headers.origin} may not change anything here; call from a program instead.`);
}

/** A page of another site can have its name mean this machine; the browser then takes both for one site, but still sends the name. */
function refuseOtherNames({ headers }: IncomingMessage): void {
  if (headers.host === undefined) return;
  if (URL.canParse(`http://${headers.host}`) && isLoopback(new URL(`http://${headers.host}`).hostname)) return;
  throw new SecateurError(
    'PERMISSION_DENIED',
    `Callers that do not tell who they are reach this service as localhost or 127.0.0.1, not as ${headers.host}; call it so, or set up tokens.`,
  );
}

async function bodyOf({ hasBody, verb, path }: MethodRoute, request: IncomingMessage): Promise<string> {
  if (hasBody) {
    if (queryOf(request).size > 0) throw new SecateurError('INVALID_REQUEST', `${verb} ${path} takes no query; its fields are the body.`);
    return readBody(request);
  }
  if ((await readBody(request)) !== '')
    throw new SecateurError('INVALID_REQUEST', `${verb} ${path} takes no body; its fields are the query.`);
  return '';
}

/** A handler that does not listen to its signal must not keep its caller waiting. */
function untilAborted<Result>(work: Promise<Result>, signal: AbortSignal): Promise<Result> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

function endWith({ request, response }: Exchange, error: SecateurError): void {
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  // What was sent beside the point is not read any more.
  if (!request.complete) response.setHeader('Connection', 'close');
  sendError(response, error);
}

function queryOf({ url = '' }: IncomingMessage): URLSearchParams {
  const start = url.indexOf('?');
  return new URLSearchParams(start === -1 ? '' : url.slice(start + 1));
}

function peerOf({ socket }: IncomingMessage): string {
  return `${socket.remoteAddress ?? ''}:${socket.remotePort ?? ''}`;
}

function firstOf(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header;
}

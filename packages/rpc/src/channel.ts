import { Client, credentials } from '@grpc/grpc-js';
import { SecateurError } from '@secateur/core';
import { callServerStream, callUnary, isClosed, type CallTarget } from './client-call.js';
import { CLIENT_CHANNEL_OPTIONS, type ChannelKind } from './channel-options.js';
import { connectionProblem, throwIfUntrusted } from './connection-problem.js';
import type { CallOptions, ServiceClient, ServiceDefinition } from './definition.js';
import { parseHostPort } from './host-port.js';
import { isLoopback } from './listen-address.js';
import { createMethodCodec } from './method-codec.js';
import type { TlsCredentials } from './tls/tls-credentials.js';

/** grpc-js cannot be told to stop waiting, so it waits in short turns. */
const READY_POLL_MS = 200;

/** A connection to one server, made when it is first needed and remade when it breaks. */
export interface Channel {
  /** HOST:PORT of the server. */
  readonly address: string;
  client<Definition extends ServiceDefinition>(definition: Definition): ServiceClient<Definition>;
  /** Resolves once the server is reached; UNAVAILABLE when that takes longer. */
  waitForReady(timeoutMs: number, signal?: AbortSignal): Promise<void>;
  /** Refuses further calls and closes the connection when the running ones are over. */
  close(): void;
}

export interface ConnectOptions {
  /** `bulk` for TensorService, `control` for everything else. */
  readonly kind: ChannelKind;
  /** Certificates. Without them everything is sent in the clear. */
  readonly tls?: TlsCredentials | undefined;
  /** Sent with every call to tell who makes it: a token, or what reads the present one. Needs TLS, unless the server is on this machine. */
  readonly token?: string | (() => string) | undefined;
}

export function connect(address: string, { kind, tls, token }: ConnectOptions): Channel {
  const server = parseHostPort(address);
  if (token !== undefined && tls === undefined && !isLoopback(server.host)) {
    throw new SecateurError(
      'INVALID_REQUEST',
      `A token is not sent to ${address} in the clear, where others could read it; use TLS (--tls-ca, or SECATEUR_TLS_CA).`,
    );
  }
  const secure = tls?.channel(server) ?? { credentials: credentials.createInsecure(), options: {} };
  const client = new Client(address, secure.credentials, { ...CLIENT_CHANNEL_OPTIONS[kind], ...secure.options });
  const target: CallTarget = { client, address, server, token: typeof token === 'string' ? () => token : token };
  return {
    address,
    client: (definition) => createServiceClient(target, definition),
    waitForReady: (timeoutMs, signal) => waitForReady(target, timeoutMs, signal),
    close: () => client.close(),
  };
}

function createServiceClient<Definition extends ServiceDefinition>(target: CallTarget, definition: Definition): ServiceClient<Definition> {
  const methods = Object.entries(definition.methods).map(([name, method]) => {
    const codec = createMethodCodec(definition, method);
    const invoke = method.responseStream ? callServerStream : callUnary;
    return [name, (request: unknown, options: CallOptions) => invoke(target, codec, request, options)];
  });
  return Object.fromEntries(methods) as ServiceClient<Definition>;
}

async function waitForReady(target: CallTarget, timeoutMs: number, signal: AbortSignal | undefined): Promise<void> {
  const { address, client } = target;
  const endMs = performance.now() + timeoutMs;
  let problem = '';
  do {
    if (signal?.aborted) throw new SecateurError('CANCELLED', `Connecting to ${address} was cancelled.`, { cause: signal.reason });
    if (isClosed(client)) throw new SecateurError('UNAVAILABLE', `The channel to ${address} was closed.`);
    if (await becomesReady(client, Date.now() + Math.min(endMs - performance.now(), READY_POLL_MS))) return;
    problem = await connectionProblem(client);
    throwIfUntrusted(problem, address);
  } while (performance.now() < endMs);
  throw new SecateurError(
    'UNAVAILABLE',
    `Nothing answers at ${address} within ${timeoutMs} ms; check the address, that the server runs, and whether it wants TLS (--tls-ca).${problem && ` ${problem}`}`,
  );
}

function becomesReady(client: Client, deadlineMs: number): Promise<boolean> {
  return new Promise((resolve) => client.waitForReady(deadlineMs, (error) => resolve(error === undefined)));
}

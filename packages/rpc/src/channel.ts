import { Client, credentials } from '@grpc/grpc-js';
import { SecateurError } from '@secateur/core';
import { callServerStream, callUnary, isClosed, type CallTarget } from './client-call.js';
import { CLIENT_CHANNEL_OPTIONS, type ChannelKind } from './channel-options.js';
import type { CallOptions, ServiceClient, ServiceDefinition } from './definition.js';
import { parseHostPort } from './host-port.js';
import { createMethodCodec } from './method-codec.js';

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
}

export function connect(address: string, { kind }: ConnectOptions): Channel {
  const server = parseHostPort(address);
  const client = new Client(address, credentials.createInsecure(), CLIENT_CHANNEL_OPTIONS[kind]);
  const target: CallTarget = { client, address, server };
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
  const endMs = Date.now() + timeoutMs;
  do {
    if (signal?.aborted) throw new SecateurError('CANCELLED', `Connecting to ${address} was cancelled.`, { cause: signal.reason });
    if (isClosed(client)) throw new SecateurError('UNAVAILABLE', `The channel to ${address} was closed.`);
    if (await becomesReady(client, Math.min(endMs, Date.now() + READY_POLL_MS))) return;
  } while (Date.now() < endMs);
  throw new SecateurError(
    'UNAVAILABLE',
    `Nothing answers at ${address} within ${timeoutMs} ms; check the address and that the server runs.`,
  );
}

function becomesReady(client: Client, deadlineMs: number): Promise<boolean> {
  return new Promise((resolve) => client.waitForReady(deadlineMs, (error) => resolve(error === undefined)));
}

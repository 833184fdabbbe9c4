import { context as contextApi, type Context } from '@opentelemetry/api';
import { connectivityState, Metadata, type Client, type ServiceError } from '@grpc/grpc-js';
import { SecateurError } from '@secateur/core';
import type { CallOptions, StreamOptions } from './definition.js';
import type { HostPort } from './host-port.js';
import type { MethodCodec } from './method-codec.js';
import { fromStatusObject } from './status.js';
import { traceClientCall } from './tracing.js';

/** Where calls go. */
export interface CallTarget {
  readonly client: Client;
  readonly address: string;
  readonly server: HostPort;
  /** The token to send, where there is one. */
  readonly token: (() => string) | undefined;
}

export function isClosed(client: Client): boolean {
  return client.getChannel().getConnectivityState(false) === connectivityState.SHUTDOWN;
}

export async function callUnary(target: CallTarget, method: MethodCodec, request: unknown, options: CallOptions): Promise<unknown> {
  const metadata = createMetadata(target);
  const traced = traceClientCall(method, target.server, metadata);
  try {
    const response = await sendUnary(target, method, request, metadata, options);
    traced.end();
    return response;
  } catch (cause) {
    const error = toClientError(cause, target, method, options.signal);
    traced.end(error);
    throw error;
  }
}

function createMetadata({ token: readToken }: CallTarget): Metadata {
  const metadata = new Metadata();
  if (readToken === undefined) return metadata;
  const token = readToken().trim();
  // grpc-js would refuse it too, and show it in the error.
  if (!/^[\x21-\x7e]+$/.test(token)) {
    throw new SecateurError('INVALID_REQUEST', 'The token is empty, or holds characters that no token has, such as spaces or line breaks.');
  }
  metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}

function sendUnary(
  { client }: CallTarget,
  method: MethodCodec,
  request: unknown,
  metadata: Metadata,
  options: CallOptions,
): Promise<unknown> {
  const { signal, timeoutMs } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) throw cancelled(method, signal);
    const cancel = (): void => call.cancel();
    const call = client.makeUnaryRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      metadata,
      { deadline: Date.now() + timeoutMs },
      (error, response) => {
        signal?.removeEventListener('abort', cancel);
        if (error === null) resolve(response);
        else reject(error);
      },
    );
    signal?.addEventListener('abort', cancel, { once: true });
  });
}

/** Messages are taken from the connection as they are read; at most the sixteen of a Node stream wait. */
export function callServerStream(
  target: CallTarget,
  method: MethodCodec,
  request: unknown,
  options: StreamOptions,
): AsyncGenerator<unknown, void, undefined> {
  return readServerStream(target, method, request, options, contextApi.active());
}

async function* readServerStream(
  target: CallTarget,
  method: MethodCodec,
  request: unknown,
  { signal, timeoutMs, idleTimeoutMs }: StreamOptions,
  parent: Context,
): AsyncGenerator<unknown, void, undefined> {
  if (signal?.aborted) throw cancelled(method, signal);
  const metadata = createMetadata(target);
  const traced = contextApi.with(parent, () => traceClientCall(method, target.server, metadata));
  let failure: SecateurError | undefined;
  try {
    const { path, requestSerialize, responseDeserialize } = method;
    const deadline = Date.now() + timeoutMs;
    const call = target.client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, request, metadata, { deadline });
    // The status of a call that is cancelled below comes after its reader has gone.
    call.on('error', () => undefined);
    const cancel = (): void => call.cancel();
    signal?.addEventListener('abort', cancel, { once: true });
    const messages = call[Symbol.asyncIterator]() as AsyncIterator<unknown>;
    try {
      for (;;) {
        const next = await withinTime(messages.next(), idleTimeoutMs, () => idle(target, method, idleTimeoutMs));
        if (next.done === true) return;
        yield next.value;
      }
    } finally {
      signal?.removeEventListener('abort', cancel);
      call.cancel();
    }
  } catch (cause) {
    failure = toClientError(cause, target, method, signal);
    throw failure;
  } finally {
    traced.end(failure);
  }
}

function withinTime<Value>(pending: Promise<Value>, timeoutMs: number | undefined, timeoutError: () => Error): Promise<Value> {
  if (timeoutMs === undefined) return pending;
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(timeoutError()), timeoutMs);
    pending.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

function toClientError(
  cause: unknown,
  { client, address }: CallTarget,
  method: MethodCodec,
  signal: AbortSignal | undefined,
): SecateurError {
  if (cause instanceof SecateurError) return cause;
  if (signal?.aborted) return cancelled(method, signal);
  const callName = `${method.fullName} at ${address}`;
  if (isServiceError(cause)) return fromStatusObject(cause, callName);
  if (isClosed(client)) return new SecateurError('UNAVAILABLE', `${callName}: the channel was closed.`, { cause });
  return new SecateurError('INTERNAL', `${callName}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
}

function isServiceError(cause: unknown): cause is ServiceError {
  return cause instanceof Error && 'code' in cause && typeof cause.code === 'number' && 'metadata' in cause;
}

function cancelled(method: MethodCodec, signal: AbortSignal): SecateurError {
  return new SecateurError('CANCELLED', `${method.fullName} was cancelled.`, { cause: signal.reason });
}

function idle({ address }: CallTarget, method: MethodCodec, idleTimeoutMs: number | undefined): SecateurError {
  return new SecateurError('DEADLINE_EXCEEDED', `${method.fullName} at ${address} sent nothing for ${idleTimeoutMs} ms.`);
}

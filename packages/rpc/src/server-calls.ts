import { context as contextApi } from '@opentelemetry/api';
import type { handleServerStreamingCall, handleUnaryCall, Metadata, ServerUnaryCall, ServerWritableStream } from '@grpc/grpc-js';
import { SecateurError } from '@secateur/core';
import type { EndedCall } from './access.js';
import type { CallContext, Caller } from './definition.js';
import { explainFailure } from './explain-failure.js';
import type { HostPort } from './host-port.js';
import type { RpcLogger } from './logger.js';
import { requireDecoded, type MethodCodec } from './method-codec.js';
import { toStatusObject } from './status.js';
import { StreamWriter } from './stream-writer.js';
import { traceServerCall, type TracedServerCall } from './tracing.js';

type UnaryHandler = (request: unknown, context: CallContext) => Promise<unknown>;
type StreamHandler = (request: unknown, context: CallContext) => AsyncIterable<unknown>;
type GrpcCall = ServerUnaryCall<unknown, unknown> | ServerWritableStream<unknown, unknown>;

interface RunningCall {
  readonly traced: TracedServerCall;
  readonly context: CallContext;
  /** What the call ends with when its handler threw `cause`. */
  fail(cause: unknown): SecateurError;
  end(error: SecateurError | undefined, response?: unknown): void;
}

/** Runs handlers for the calls of a server, and knows which are running. */
export class ServerCalls {
  private readonly running = new Set<AbortController>();
  private stopped: SecateurError | undefined;

  constructor(
    private readonly address: () => HostPort,
    private readonly callerOf: (metadata: Metadata) => Caller,
    private readonly logger: RpcLogger | undefined,
    private readonly onCallEnd: ((call: EndedCall) => void) | undefined,
  ) {}

  /** Asks the handlers of all calls to stop; those that do end with this error. Calls that come later are stopped at once. */
  stop(error: SecateurError): void {
    this.stopped = error;
    for (const controller of this.running) controller.abort(error);
  }

  serveUnary(method: MethodCodec, handler: UnaryHandler, maximumMs?: number): handleUnaryCall<unknown, unknown> {
    return (call, callback) => {
      const running = this.begin(call, method, maximumMs);
      const answer = async (): Promise<void> => {
        try {
          const response = await contextApi.with(running.traced.context, () => handler(requireDecoded(call.request), running.context));
          callback(null, response);
          running.end(undefined, response);
        } catch (cause) {
          const error = running.fail(cause);
          callback(toStatusObject(error));
          running.end(error);
        }
      };
      void answer();
    };
  }

  serveStream(method: MethodCodec, handler: StreamHandler, maximumMs?: number): handleServerStreamingCall<unknown, unknown> {
    return (call) => {
      const running = this.begin(call, method, maximumMs);
      const answer = async (): Promise<void> => {
        try {
          await writeAll(call, running, () => handler(requireDecoded(call.request), running.context));
          call.end();
          running.end(undefined);
        } catch (cause) {
          const error = running.fail(cause);
          call.emit('error', toStatusObject(error));
          running.end(error);
        }
      };
      void answer();
    };
  }

  private begin(call: GrpcCall, method: MethodCodec, maximumMs: number | undefined): RunningCall {
    const controller = new AbortController();
    const { signal } = controller;
    const deadline = new Date(call.getDeadline());
    const limit = maximumMs === undefined ? undefined : setTimeout(() => controller.abort(tooLongError(method, maximumMs)), maximumMs);
    this.running.add(controller);
    if (this.stopped !== undefined) controller.abort(this.stopped);
    // Emitted after every call, also one that was answered.
    call.on('cancelled', () => {
      if (this.running.has(controller)) controller.abort(goneError(method, deadline));
    });
    const traced = traceServerCall(method, this.address(), call.metadata);
    const context = { signal, peer: call.getPeer(), caller: this.callerOf(call.metadata), method: method.fullName, deadline };
    return {
      traced,
      context,
      fail: (cause) => explainFailure(cause, method.fullName, signal, this.logger),
      end: (error, response) => {
        clearTimeout(limit);
        this.running.delete(controller);
        traced.end(error);
        const { peer, caller } = context;
        this.onCallEnd?.({ method: method.fullName, peer, caller, request: call.request, response, outcome: error?.reason ?? 'OK' });
      },
    };
  }
}

async function writeAll(
  call: ServerWritableStream<unknown, unknown>,
  { traced, context }: RunningCall,
  handler: () => AsyncIterable<unknown>,
): Promise<void> {
  const writer = new StreamWriter(call, context.signal);
  // A generator runs in the context of whoever asks for its next value.
  const inContext = <Result>(work: () => Result): Result => contextApi.with(traced.context, work);
  const messages = inContext(() => handler()[Symbol.asyncIterator]());
  for (;;) {
    const next = await inContext(() => messages.next());
    if (next.done === true) return;
    try {
      await writer.write(next.value);
    } catch (error) {
      await inContext(() => messages.return?.());
      throw error;
    }
  }
}

function tooLongError(method: MethodCodec, maximumMs: number): SecateurError {
  return new SecateurError('DEADLINE_EXCEEDED', `${method.fullName} has taken ${maximumMs / 1000} s, the most that it may; call it again.`);
}

function goneError(method: MethodCodec, deadline: Date): SecateurError {
  return Date.now() >= deadline.getTime()
    ? new SecateurError('DEADLINE_EXCEEDED', `The deadline of ${method.fullName} is over.`)
    : new SecateurError('CANCELLED', `The caller of ${method.fullName} cancelled it or is gone.`);
}

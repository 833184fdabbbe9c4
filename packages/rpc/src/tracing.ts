/** Spans and durations of calls after OpenTelemetry's stable RPC conventions, without a dependency on an SDK. */

import {
  context as contextApi,
  propagation,
  SpanKind,
  SpanStatusCode,
  trace,
  type Attributes,
  type Context,
  type Span,
  type TextMapGetter,
  type TextMapSetter,
} from '@opentelemetry/api';
import type { SecateurError } from '@secateur/core';
import { recordSeconds } from '@secateur/telemetry';
import type { Metadata } from '@grpc/grpc-js';
import type { HostPort } from './host-port.js';
import { isInfrastructure, type MethodCodec } from './method-codec.js';

const tracer = trace.getTracer('@secateur/rpc');

const METADATA_SETTER: TextMapSetter<Metadata> = { set: (metadata, key, value) => metadata.set(key, value) };
const METADATA_GETTER: TextMapGetter<Metadata> = {
  keys: (metadata) => Object.keys(metadata.getMap()),
  get: (metadata, key) => metadata.get(key).map(String),
};

/** A call being traced, to be ended once. */
export interface TracedCall {
  end(error?: SecateurError): void;
}

export interface TracedServerCall extends TracedCall {
  /** What the handler runs in. */
  readonly context: Context;
}

/** Begins the CLIENT span of a call and writes its context into the metadata to be sent. */
export function traceClientCall(method: MethodCodec, server: HostPort, metadata: Metadata): TracedCall {
  const parent = contextApi.active();
  if (isInfrastructure(method.path)) return { end: () => undefined };
  const span = tracer.startSpan(method.fullName, { kind: SpanKind.CLIENT, attributes: describe(method, server) }, parent);
  propagation.inject(trace.setSpan(parent, span), metadata, METADATA_SETTER);
  const startedMs = performance.now();
  return {
    end: (error) => {
      recordDuration('RPC_CLIENT_DURATION', method, startedMs, error);
      endSpan(span, error, error !== undefined);
    },
  };
}

/** Begins the SERVER span of a call under the span whose context came with it. */
export function traceServerCall(method: MethodCodec, server: HostPort, metadata: Metadata): TracedServerCall {
  const parent = propagation.extract(contextApi.active(), metadata, METADATA_GETTER);
  const span = tracer.startSpan(method.fullName, { kind: SpanKind.SERVER, attributes: describe(method, server) }, parent);
  const startedMs = performance.now();
  return {
    context: trace.setSpan(parent, span),
    end: (error) => {
      recordDuration('RPC_SERVER_DURATION', method, startedMs, error);
      endSpan(span, error, error !== undefined && isServersFault(error));
    },
  };
}

function describe(method: MethodCodec, server: HostPort): Attributes {
  return { 'rpc.system.name': 'grpc', 'rpc.method': method.fullName, 'server.address': server.host, 'server.port': server.port };
}

function recordDuration(
  histogram: 'RPC_CLIENT_DURATION' | 'RPC_SERVER_DURATION',
  method: MethodCodec,
  startedMs: number,
  error: SecateurError | undefined,
): void {
  const attributes = { 'rpc.method': method.fullName, 'rpc.response.status_code': statusOf(error) };
  recordSeconds(histogram, (performance.now() - startedMs) / 1e3, attributes);
}

function statusOf(error: SecateurError | undefined): string {
  return error === undefined ? 'OK' : error.status;
}

function endSpan(span: Span, error: SecateurError | undefined, isFailure: boolean): void {
  span.setAttribute('rpc.response.status_code', statusOf(error));
  // Work that was stopped on purpose did not fail.
  if (error !== undefined && isFailure && error.reason !== 'CANCELLED') {
    span.setAttribute('error.type', error.reason);
    span.setStatus({ code: SpanStatusCode.ERROR, message: error.message });
  }
  span.end();
}

/** The conventions count these, and not a caller's mistakes, as errors of a server. */
function isServersFault(error: SecateurError): boolean {
  return ['DATA_LOSS', 'DEADLINE_EXCEEDED', 'INTERNAL', 'UNAVAILABLE', 'UNKNOWN'].includes(error.status);
}

import type { ServiceImplementation } from '@secateur/rpc';
import type { SpanRecorder } from '@secateur/telemetry';
import type { TraceServiceDefinition } from '@secateur/proto/trace_service';

/** Hands over the spans this node recorded, so that a trace can be written without a collector. */
export function createTraceService(recorder: SpanRecorder): ServiceImplementation<TraceServiceDefinition> {
  return {
    drainSpans: async function* (request) {
      for await (const otlpJson of recorder.drain(request.traceIds)) yield { otlpJson };
    },
  };
}

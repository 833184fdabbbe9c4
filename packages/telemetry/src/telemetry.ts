import type { ServiceIdentity } from './service-identity.js';
import { SpanRecorder } from './span-recorder.js';

export interface Telemetry {
  readonly recorder: SpanRecorder;
  /** Sends what is still to be exported. */
  shutdown(): Promise<void>;
}

/**
 * Sets up tracing of this process, once. Spans are exported over OTLP only when the standard environment variables ask for it
 * (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_TRACES_EXPORTER), and recorded for traces whose root span has
 * the attribute secateur.trace.record. OTEL_SDK_DISABLED=true turns all of it off.
 */
export async function startTelemetry(service: ServiceIdentity): Promise<Telemetry> {
  const recorder = new SpanRecorder();
  if (process.env['OTEL_SDK_DISABLED']?.toLowerCase() === 'true') return { recorder, shutdown: () => Promise.resolve() };
  // Only processes that trace pay for loading the SDK.
  const { startTracing } = await import('./tracer-provider.js');
  return { recorder, shutdown: await startTracing(service, recorder) };
}

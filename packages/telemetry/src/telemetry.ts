import type { ServiceIdentity } from './service-identity.js';
import { SpanRecorder } from './span-recorder.js';

export interface Telemetry {
  readonly recorder: SpanRecorder;
  /** The metrics of this process, as Prometheus reads them; empty where they were not asked for. */
  readMetrics(): Promise<string>;
  /** Sends what is still to be exported. What cannot be sent is lost, and keeps nobody from ending well. */
  shutdown(): Promise<void>;
}

export interface TelemetryOptions {
  /** Whether `readMetrics` will be called. Defaults to false: nothing is measured. */
  readonly metrics?: boolean;
  /** Told of spans that could not be exported at the end. */
  readonly logger?: TelemetryLogger;
}

interface TelemetryLogger {
  warn(fields: object, message: string): void;
}

/**
 * Sets up tracing and metrics of this process, once. Spans are exported over OTLP only when the standard environment variables ask for it
 * (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_TRACES_EXPORTER), and recorded for traces whose root span has
 * the attribute secateur.trace.record. OTEL_SDK_DISABLED=true turns all of it off.
 */
export async function startTelemetry(service: ServiceIdentity, { metrics = false, logger }: TelemetryOptions = {}): Promise<Telemetry> {
  const recorder = new SpanRecorder();
  if (process.env['OTEL_SDK_DISABLED']?.toLowerCase() === 'true') {
    return { recorder, readMetrics: () => Promise.resolve(''), shutdown: () => Promise.resolve() };
  }
  // Only processes that trace or are asked for metrics pay for loading what does it, and only those whose environment sets up OpenTelemetry
  // for the whole of its SDK.
  const reader = metrics ? new (await import('./metric-reader.js')).MetricReader() : undefined;
  const stop = Object.keys(process.env).some((name) => name.startsWith('OTEL_'))
    ? await (await import('./start-sdk.js')).startSdk(service, recorder, reader)
    : (await import('./start-providers.js')).startProviders(service, recorder, reader);
  const shutdown = (): Promise<void> => stop().catch((error: unknown) => logger?.warn({ err: error }, 'the last spans were not exported'));
  return { recorder, readMetrics: () => reader?.read() ?? Promise.resolve(''), shutdown };
}

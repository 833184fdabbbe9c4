import { metrics } from '@opentelemetry/api';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { MeterProvider } from '@opentelemetry/sdk-metrics';
import { NodeTracerProvider, ParentBasedSampler } from '@opentelemetry/sdk-trace-node';
import type { MetricReader } from './metric-reader.js';
import { RootSampler } from './root-sampler.js';
import { resourceAttributes, type ServiceIdentity } from './service-identity.js';
import type { SpanRecorder } from './span-recorder.js';

/**
 * Records spans with W3C propagation, and metrics where somebody reads them, as the Node SDK does by default, without loading the exporters,
 * propagators and configuration files that only the environment could ask for: most of what a process would load at its start.
 */
export function startProviders(
  service: ServiceIdentity,
  recorder: SpanRecorder,
  metricReader: MetricReader | undefined,
): () => Promise<void> {
  const resource = resourceFromAttributes(resourceAttributes(service));
  const sampler = new ParentBasedSampler({ root: new RootSampler(false) });
  const tracers = new NodeTracerProvider({ resource, sampler, spanProcessors: [recorder] });
  tracers.register();
  if (metricReader === undefined) return () => tracers.shutdown();
  const meters = new MeterProvider({ resource, readers: [metricReader.exporter] });
  metrics.setGlobalMeterProvider(meters);
  return async () => {
    await Promise.all([tracers.shutdown(), meters.shutdown()]);
  };
}

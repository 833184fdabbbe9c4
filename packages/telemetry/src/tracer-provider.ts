import { detectResources, envDetector, resourceFromAttributes } from '@opentelemetry/resources';
import { BatchSpanProcessor, NodeTracerProvider, ParentBasedSampler, type SpanProcessor } from '@opentelemetry/sdk-trace-node';
import { createOtlpExporter, otlpProtocol } from './otlp-exporter.js';
import { RootSampler } from './root-sampler.js';
import type { ServiceIdentity } from './service-identity.js';
import type { SpanRecorder } from './span-recorder.js';

/** The default of 2048 loses spans when a layer ends on many nodes at once. */
const EXPORT_QUEUE_SPANS = 16_384;

/** Registers the tracer provider, the W3C propagators and the context manager; returns what flushes and stops them. */
export async function startTracing(service: ServiceIdentity, recorder: SpanRecorder): Promise<() => Promise<void>> {
  const protocol = otlpProtocol(process.env);
  const spanProcessors: SpanProcessor[] = [recorder];
  if (protocol !== undefined) {
    spanProcessors.push(new BatchSpanProcessor(await createOtlpExporter(protocol), { maxQueueSize: EXPORT_QUEUE_SPANS }));
  }
  const resource = resourceFromAttributes({
    'service.name': service.serviceName,
    'service.version': service.serviceVersion,
    'service.instance.id': service.instanceId,
    'process.pid': process.pid,
  }).merge(detectResources({ detectors: [envDetector] }));
  const sampler = new ParentBasedSampler({ root: new RootSampler(protocol !== undefined) });
  const provider = new NodeTracerProvider({ resource, sampler, spanProcessors });
  provider.register();
  return () => provider.shutdown();
}

import { envDetector, resourceFromAttributes } from '@opentelemetry/resources';
import { NodeSDK } from '@opentelemetry/sdk-node';
import { BatchSpanProcessor, ParentBasedSampler, type SpanProcessor } from '@opentelemetry/sdk-trace-base';
import type { MetricReader } from './metric-reader.js';
import { createOtlpExporter, otlpProtocol } from './otlp-exporter.js';
import { RootSampler } from './root-sampler.js';
import { resourceAttributes, type ServiceIdentity } from './service-identity.js';
import type { SpanRecorder } from './span-recorder.js';

/** The default of 2048 loses spans when a layer ends on many nodes at once. */
const EXPORT_QUEUE_SPANS = 16_384;

/** Starts the Node SDK with W3C propagation, and metrics where somebody reads them; returns what flushes and stops it. */
export async function startSdk(
  service: ServiceIdentity,
  recorder: SpanRecorder,
  metricReader: MetricReader | undefined,
): Promise<() => Promise<void>> {
  const protocol = otlpProtocol(process.env);
  const spanProcessors: SpanProcessor[] = [recorder];
  if (protocol !== undefined) {
    spanProcessors.push(new BatchSpanProcessor(await createOtlpExporter(protocol), { maxQueueSize: EXPORT_QUEUE_SPANS }));
  }
  const resource = resourceFromAttributes(resourceAttributes(service));
  const sampler = new ParentBasedSampler({ root: new RootSampler(protocol !== undefined) });
  // Nothing is measured or logged over OTLP, so the SDK's own readers would only look for a collector in vain.
  const metricReaders = metricReader === undefined ? [] : [metricReader.exporter];
  const signals = { metricReaders, logRecordProcessors: [], instrumentations: [] };
  const sdk = new NodeSDK({ resource, resourceDetectors: [envDetector], sampler, spanProcessors, ...signals });
  sdk.start();
  return () => sdk.shutdown();
}

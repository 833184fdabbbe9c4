import type { SpanExporter } from '@opentelemetry/sdk-trace-base';

type Environment = Readonly<Record<string, string | undefined>>;

/** The OTLP protocol the standard environment variables ask for; undefined when they ask for no export. */
export function otlpProtocol(environment: Environment): string | undefined {
  const exporters = (environment['OTEL_TRACES_EXPORTER'] ?? '').split(',').map((name) => name.trim());
  const endpoint = environment['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'] ?? environment['OTEL_EXPORTER_OTLP_ENDPOINT'] ?? '';
  const named = exporters.some((name) => name !== '');
  if (!(named ? exporters.includes('otlp') : endpoint !== '')) return undefined;
  return environment['OTEL_EXPORTER_OTLP_TRACES_PROTOCOL'] ?? environment['OTEL_EXPORTER_OTLP_PROTOCOL'] ?? 'http/protobuf';
}

/** The exporter of a protocol, loaded only when it is needed. Endpoint, headers and so on are read from the environment by the exporter. */
export async function createOtlpExporter(protocol: string): Promise<SpanExporter> {
  switch (protocol) {
    case 'grpc':
      return new (await import('@opentelemetry/exporter-trace-otlp-grpc')).OTLPTraceExporter();
    case 'http/json':
      return new (await import('@opentelemetry/exporter-trace-otlp-http')).OTLPTraceExporter();
    case 'http/protobuf':
      return new (await import('@opentelemetry/exporter-trace-otlp-proto')).OTLPTraceExporter();
    default:
      throw new Error(`OTEL_EXPORTER_OTLP_PROTOCOL is ${JSON.stringify(protocol)}; it can be grpc, http/protobuf or http/json.`);
  }
}

import { PrometheusExporter, PrometheusSerializer } from '@opentelemetry/exporter-prometheus';
import { DataPointType, type ScopeMetrics } from '@opentelemetry/sdk-metrics';

/** Reads the metrics of this process when they are asked for, in the text format of Prometheus. */
export class MetricReader {
  /** To be given to the SDK. It opens no port of its own. */
  readonly exporter = new PrometheusExporter({ preventServerStart: true });
  /** No prefix, no timestamps, and no label of the library that measures. */
  private readonly serializer = new PrometheusSerializer('', false, undefined, false, true);

  async read(): Promise<string> {
    const { resourceMetrics } = await this.exporter.collect();
    return this.serializer.serialize({ ...resourceMetrics, scopeMetrics: resourceMetrics.scopeMetrics.map(withoutUnread) });
  }
}

/** Without gauges that could not be read. */
function withoutUnread({ scope, metrics }: ScopeMetrics): ScopeMetrics {
  return {
    scope,
    metrics: metrics.map((metric) =>
      metric.dataPointType === DataPointType.GAUGE
        ? { ...metric, dataPoints: metric.dataPoints.filter(({ value }) => !Number.isNaN(value)) }
        : metric,
    ),
  };
}

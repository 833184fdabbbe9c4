export { addEngineSpans, type EngineTiming } from './engine-spans.js';
export { count, observe, recordSeconds, type GaugeValue } from './metrics.js';
export { Attribute, EventName, SpanName } from './names.js';
export { toPerfetto } from './perfetto.js';
export type { ServiceIdentity } from './service-identity.js';
export type { SpanRecorder } from './span-recorder.js';
export { startTelemetry, type Telemetry } from './telemetry.js';
export { withSpan, type SpanSettings } from './with-span.js';

export { addEngineSpans, type EngineTiming } from './engine-spans.js';
export { Attribute, EventName, SpanName } from './names.js';
export type { SpanRecorder } from './span-recorder.js';
export { startTelemetry, type Telemetry, type TelemetryOptions } from './telemetry.js';
export { toPerfetto } from './perfetto.js';
export { withSpan, type SpanSettings } from './with-span.js';

import { context as contextApi, trace, type HrTime } from '@opentelemetry/api';
import { Attribute } from './names.js';

/** A timed part of an engine call, relative to the start of the call. */
export interface EngineTiming {
  readonly phase: string;
  readonly startNanoseconds: number;
  readonly durationNanoseconds: number;
  readonly flops: number;
  readonly bytes: number;
}

const tracer = trace.getTracer('@secateur/telemetry');

/** Hangs the phases of an engine call that began at `startedAtMs` (Unix time) below the active span. */
export function addEngineSpans(startedAtMs: number, timings: readonly EngineTiming[]): void {
  if (trace.getActiveSpan()?.isRecording() !== true) return;
  const parent = contextApi.active();
  for (const { phase, startNanoseconds, durationNanoseconds, flops, bytes } of timings) {
    const attributes = {
      [Attribute.ENGINE_DEVICE_TIME]: durationNanoseconds,
      [Attribute.ENGINE_FLOPS]: flops,
      [Attribute.ENGINE_BYTES]: bytes,
    };
    const span = tracer.startSpan(`engine.${phase}`, { startTime: toHrTime(startedAtMs, startNanoseconds), attributes }, parent);
    span.end(toHrTime(startedAtMs, startNanoseconds + durationNanoseconds));
  }
}

/** Seconds and nanoseconds, because a Unix time in one number is exact to a quarter of a microsecond only. */
function toHrTime(startMs: number, laterByNs: number): HrTime {
  const seconds = Math.floor(startMs / 1e3);
  const nanoseconds = Math.round((startMs - seconds * 1e3) * 1e6 + laterByNs);
  return [seconds + Math.floor(nanoseconds / 1e9), nanoseconds % 1e9];
}

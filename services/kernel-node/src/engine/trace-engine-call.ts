import type { Timed } from '@secateur/native';
import { addEngineSpans, count } from '@secateur/telemetry';
import { toServiceError } from './wire-types.js';

/** Runs a call of the engine, hangs its phases under the active span, and turns its errors into those of the service. */
export async function traceEngineCall<Value>(call: () => Promise<Timed<Value>>): Promise<Value> {
  const calledAtMs = Date.now();
  try {
    const { value, timings, queuedNanoseconds } = await call();
    for (const { phase, durationNanoseconds } of timings)
      count('DEVICE_TIME', durationNanoseconds / 1e9, { 'secateur.engine.phase': phase });
    addEngineSpans(calledAtMs + queuedNanoseconds / 1e6, timings);
    return value;
  } catch (error) {
    throw toServiceError(error);
  }
}

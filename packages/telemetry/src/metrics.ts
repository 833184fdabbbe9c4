import { setTimeout as sleep } from 'node:timers/promises';
import { metrics, type Attributes, type Meter, type MeterProvider } from '@opentelemetry/api';
import { COUNTERS, GAUGES, HISTOGRAMS, type Counter, type Gauge, type Histogram } from './names.js';

interface Instruments {
  readonly provider: MeterProvider;
  readonly meter: Meter;
  readonly add: Partial<Record<Counter, (value: number, attributes: Attributes) => void>>;
  readonly record: Partial<Record<Histogram, (value: number, attributes: Attributes) => void>>;
}

let current: Instruments | undefined;

/** Adds to what has happened. Does nothing where nobody reads metrics. */
export function count(counter: Counter, value: number, attributes: Attributes = {}): void {
  const { add, meter } = instruments();
  const { name, unit, description } = COUNTERS[counter];
  if (add[counter] === undefined) {
    const instrument = meter.createCounter(name, { unit, description });
    add[counter] = (...sample) => instrument.add(...sample);
  }
  add[counter](value, attributes);
}

/** Records how long something took, in seconds. */
export function recordSeconds(histogram: Histogram, seconds: number, attributes: Attributes = {}): void {
  const { record, meter } = instruments();
  const { name, unit, description, bounds } = HISTOGRAMS[histogram];
  if (record[histogram] === undefined) {
    const instrument = meter.createHistogram(name, { unit, description, advice: { explicitBucketBoundaries: [...bounds] } });
    record[histogram] = (...sample) => instrument.record(...sample);
  }
  record[histogram](seconds, attributes);
}

export interface GaugeValue {
  readonly value: number;
  readonly attributes?: Attributes;
}

/** Below the 10 s that Prometheus waits for all of them. */
const READ_TIMEOUT_MS = 5_000;

/**
 * Says how a gauge is read when somebody asks; once, after telemetry was started. One that cannot be read, or not in time, is not told: what is
 * waited for longer would keep all others from being told too.
 */
export function observe(gauge: Gauge, read: () => Iterable<GaugeValue> | Promise<Iterable<GaugeValue>>, timeoutMs = READ_TIMEOUT_MS): void {
  const { name, unit, description } = GAUGES[gauge];
  let told: readonly Attributes[] = [];
  instruments()
    .meter.createObservableGauge(name, { unit, description })
    .addCallback(async (result) => {
      try {
        const values = [...(await inTime(read(), timeoutMs))];
        told = values.map(({ attributes = {} }) => attributes);
        for (const { value, attributes } of values) result.observe(value, attributes);
      } catch {
        // The SDK repeats what it was told last unless it is told something else; NaN is left out where metrics are read.
        for (const attributes of told) result.observe(Number.NaN, attributes);
      }
    });
}

async function inTime<Value>(value: Value | Promise<Value>, timeoutMs: number): Promise<Value> {
  const stop = new AbortController();
  const late = sleep(timeoutMs, undefined, { signal: stop.signal, ref: false }).then(() => {
    throw new Error(`Not read within ${timeoutMs} ms.`);
  });
  late.catch(() => undefined);
  try {
    return await Promise.race([value, late]);
  } finally {
    stop.abort();
  }
}

/** Instruments made before the SDK was started would do nothing for ever. */
function instruments(): Instruments {
  const provider = metrics.getMeterProvider();
  if (current?.provider !== provider) current = { provider, meter: provider.getMeter('@secateur/telemetry'), add: {}, record: {} };
  return current;
}

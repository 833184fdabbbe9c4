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

/** Says how a gauge is read when somebody asks; once, after telemetry was started. One that cannot be read is not told. */
export function observe(gauge: Gauge, read: () => Iterable<GaugeValue> | Promise<Iterable<GaugeValue>>): void {
  const { name, unit, description } = GAUGES[gauge];
  let told: readonly Attributes[] = [];
  instruments()
    .meter.createObservableGauge(name, { unit, description })
    .addCallback(async (result) => {
      try {
        const values = [...(await read())];
        told = values.map(({ attributes = {} }) => attributes);
        for (const { value, attributes } of values) result.observe(value, attributes);
      } catch {
        // The SDK repeats what it was told last unless it is told something else; NaN is left out where metrics are read.
        for (const attributes of told) result.observe(Number.NaN, attributes);
      }
    });
}

/** Instruments made before the SDK was started would do nothing for ever. */
function instruments(): Instruments {
  const provider = metrics.getMeterProvider();
  if (current?.provider !== provider) current = { provider, meter: provider.getMeter('@secateur/telemetry'), add: {}, record: {} };
  return current;
}

import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { context, propagation, SpanKind, trace, type Link } from '@opentelemetry/api';
import { addEngineSpans } from './engine-spans.js';
import { Attribute, EventName, SpanName } from './names.js';
import { toPerfetto } from './perfetto.js';
import { startTelemetry, type Telemetry } from './telemetry.js';
import { withSpan } from './with-span.js';

interface TraceEvent {
  readonly ph: string;
  readonly name: string;
  readonly pid: number;
  readonly tid?: number;
  readonly ts: number;
  readonly dur?: number;
  readonly id?: number;
  readonly args: Readonly<Record<string, unknown>>;
}

let telemetry: Telemetry;

beforeAll(async () => {
  telemetry = await startTelemetry({ serviceName: 'secateur-orchestrator', serviceVersion: '1', instanceId: 'one' });
});

afterAll(() => telemetry.shutdown());

async function show(chunks: readonly Uint8Array[]): Promise<TraceEvent[]> {
  let text = '';
  for await (const piece of toPerfetto(chunks)) text += piece;
  return (JSON.parse(text) as { traceEvents: TraceEvent[] }).traceEvents;
}

async function drain(...traceIds: string[]): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of telemetry.recorder.drain(traceIds)) chunks.push(chunk);
  return chunks;
}

/** The same spans as if the process had another name. */
function renamed(chunk: Uint8Array, instance: string): Uint8Array {
  return Buffer.from(Buffer.from(chunk).toString().replace('"stringValue":"one"', `"stringValue":"${instance}"`));
}

describe('toPerfetto', () => {
  test('draws spans, events, phases and links of real traces', async () => {
    const attributes = { [Attribute.TRACE_RECORD]: true };
    let previous: Link | undefined;
    const traceIds: string[] = [];
    for (const layer of [0, 1]) {
      const links = previous === undefined ? [] : [previous];
      await withSpan(SpanName.LAYER, { root: true, attributes: { ...attributes, [Attribute.LAYER_INDEX]: layer }, links }, async (span) => {
        traceIds.push(span.spanContext().traceId);
        previous = { context: span.spanContext() };
        await withSpan(SpanName.ALLOCATE, { attributes: { [Attribute.PROJECTION]: 'q_proj' } }, async (allocate) => {
          const calledAtMs = Date.now();
          await new Promise((resolve) => setTimeout(resolve, 5));
          addEngineSpans(calledAtMs, [
            { phase: 'sort', startNanoseconds: 0, durationNanoseconds: 3_000_000, flops: 0, bytes: 4096 },
            { phase: 'curves', startNanoseconds: 1_000, durationNanoseconds: 3_002_500, flops: 1e6, bytes: 8192 },
          ]);
          allocate.addEvent(EventName.LEARNING_RATE_TRIED, { [Attribute.LEARNING_RATE]: 0.5 });
        });
      });
    }
    const events = await show(await drain(...traceIds));
    const slices = events.filter(({ ph }) => ph === 'X');
    expect(slices.map(({ name }) => name).sort()).toEqual(
      [SpanName.LAYER, SpanName.ALLOCATE, 'engine.curves', 'engine.sort'].flatMap((name) => [name, name]).sort(),
    );
    expect(slices.find(({ name }) => name === 'engine.curves')).toMatchObject({
      dur: 3002.5,
      args: { [Attribute.ENGINE_FLOPS]: 1e6, [Attribute.ENGINE_BYTES]: 8192, [Attribute.ENGINE_DEVICE_TIME]: 3_002_500 },
    });
    expect(Math.min(...slices.map(({ ts }) => ts))).toBe(0);
    expect(events.find(({ ph }) => ph === 'i')).toMatchObject({
      name: EventName.LEARNING_RATE_TRIED,
      args: { [Attribute.LEARNING_RATE]: 0.5 },
    });
    expect(events).toContainEqual({ ph: 'M', name: 'process_name', pid: 1, args: { name: 'secateur-orchestrator one' } });
    const [from, to, ...others] = events.filter(({ ph }) => ph === 's' || ph === 'f');
    expect(others).toEqual([]);
    const layers = slices.filter(({ name }) => name === SpanName.LAYER);
    expect([from?.ts, to?.ts]).toEqual(layers.map(({ ts }) => ts).sort((left, right) => left - right));
    // Overlapping phases of one call lie on different lanes.
    const lanesOf = (name: string): unknown[] => slices.filter((slice) => slice.name === name).map(({ tid }) => tid);
    expect(lanesOf('engine.sort')).toEqual(lanesOf(SpanName.ALLOCATE));
    expect(lanesOf('engine.curves')).not.toEqual(lanesOf('engine.sort'));
  });

  test('draws an arrow from a call to its handler in another process', async () => {
    const chunks: Uint8Array[] = [];
    let traceId = '';
    const carrier: Record<string, string> = {};
    const tracer = trace.getTracer('test');
    await withSpan(SpanName.LAYER, { root: true, attributes: { [Attribute.TRACE_RECORD]: true } }, (span) => {
      traceId = span.spanContext().traceId;
      const client = tracer.startSpan('Service/Call', { kind: SpanKind.CLIENT });
      propagation.inject(trace.setSpan(context.active(), client), carrier);
      client.end();
    });
    chunks.push(...(await drain(traceId)));
    const remote = propagation.extract(context.active(), carrier);
    tracer.startSpan('Service/Call', { kind: SpanKind.SERVER }, remote).end();
    chunks.push(...(await drain(traceId)).map((chunk) => renamed(chunk, 'two')));

    const events = await show(chunks);
    const processes = Object.fromEntries(events.filter(({ name }) => name === 'process_name').map(({ pid, args }) => [args['name'], pid]));
    expect(Object.keys(processes)).toEqual(['secateur-orchestrator one', 'secateur-orchestrator two']);
    const arrow = events.filter(({ ph }) => ph === 's' || ph === 'f');
    expect(arrow.map(({ pid }) => pid)).toEqual([processes['secateur-orchestrator one'], processes['secateur-orchestrator two']]);
    expect(arrow[0]?.id).toBe(arrow[1]?.id);
  });

  test('is a whole document without spans', async () => {
    expect(await show([])).toEqual([]);
  });
});

import { describe, expect, test } from '@jest/globals';
import { ROOT_CONTEXT, trace, type Tracer } from '@opentelemetry/api';
import { BasicTracerProvider } from '@opentelemetry/sdk-trace-base';
import { Attribute } from './names.js';
import { readSpans } from './otlp-json.js';
import { RootSampler } from './root-sampler.js';
import { SpanRecorder } from './span-recorder.js';

/** A tracer of its own whose root spans are recorded. */
function tracerOf(recorder: SpanRecorder): Tracer {
  return new BasicTracerProvider({ sampler: new RootSampler(false), spanProcessors: [recorder] }).getTracer('test');
}

/** A trace of `spans` root spans' worth of text. Returns its id. */
function addTrace(tracer: Tracer, spans: number, text = ''): string {
  const attributes = { [Attribute.TRACE_RECORD]: true, text };
  const root = tracer.startSpan('root', { attributes }, ROOT_CONTEXT);
  const parent = trace.setSpan(ROOT_CONTEXT, root);
  for (let index = 1; index < spans; index++) tracer.startSpan(`span ${index}`, { attributes }, parent).end();
  root.end();
  return root.spanContext().traceId;
}

async function drain(recorder: SpanRecorder, ...traceIds: string[]): Promise<{ names: string[]; sizes: number[] }> {
  const names: string[] = [];
  const sizes: number[] = [];
  for await (const chunk of recorder.drain(traceIds)) {
    sizes.push(chunk.byteLength);
    names.push(...[...readSpans(chunk)].map(({ name }) => name));
  }
  return { names, sizes };
}

describe('the span recorder', () => {
  test('hands over each span once, in chunks of at most 1 MiB', async () => {
    const recorder = new SpanRecorder();
    const traceId = addTrace(tracerOf(recorder), 600, 'x'.repeat(5_000));
    const { names, sizes } = await drain(recorder, traceId);
    expect(new Set(names).size).toBe(600);
    expect(names).toHaveLength(600);
    expect(sizes.length).toBeGreaterThan(2);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(1 << 20);
    expect(await drain(recorder, traceId)).toEqual({ names: [], sizes: [] });
  });

  test('drops the oldest traces when it is full, and counts', async () => {
    const recorder = new SpanRecorder(10);
    const tracer = tracerOf(recorder);
    const [first, second, third] = [addTrace(tracer, 4), addTrace(tracer, 4), addTrace(tracer, 4)];
    expect(recorder.droppedSpans).toBe(4);
    expect((await drain(recorder, first)).names).toEqual([]);
    expect((await drain(recorder, second, third)).names).toHaveLength(8);
  });
});

import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { context, propagation, trace } from '@opentelemetry/api';
import { Attribute, SpanName } from './names.js';
import { readSpans, type RecordedSpan } from './otlp-json.js';
import { startTelemetry, type Telemetry } from './telemetry.js';
import { withSpan } from './with-span.js';

let telemetry: Telemetry;

beforeAll(async () => {
  telemetry = await startTelemetry({ serviceName: 'secateur-test', serviceVersion: '1.2.3', instanceId: 'here' });
});

afterAll(() => telemetry.shutdown());

/** Runs work in a root span and returns what was recorded of its trace. */
async function record(wanted: boolean, work: () => unknown): Promise<RecordedSpan[]> {
  let traceId = '';
  await withSpan(SpanName.JOB, { root: true, attributes: { [Attribute.TRACE_RECORD]: wanted } }, (span) => {
    traceId = span.spanContext().traceId;
    return work();
  }).catch(() => undefined);
  const spans: RecordedSpan[] = [];
  for await (const chunk of telemetry.recorder.drain([traceId])) spans.push(...readSpans(chunk));
  return spans;
}

describe('telemetry', () => {
  test('records the traces that ask for it, with their process, and no others', async () => {
    const spans = await record(true, () => withSpan(SpanName.PLAN, {}, () => undefined));
    expect(spans.map(({ name }) => name)).toEqual([SpanName.PLAN, SpanName.JOB]);
    expect(spans[0]).toMatchObject({ parentSpanId: spans[1]?.spanId, process: 'secateur-test here' });
    let recording = true;
    expect(
      await record(false, () => {
        recording = trace.getActiveSpan()!.isRecording();
      }),
    ).toEqual([]);
    expect(recording).toBe(false);
  });

  test('records what other processes began, when they want it', async () => {
    const carrier: Record<string, string> = {};
    let traceId = '';
    await withSpan(SpanName.JOB, { root: true, attributes: { [Attribute.TRACE_RECORD]: true } }, (span) => {
      traceId = span.spanContext().traceId;
      propagation.inject(context.active(), carrier);
    });
    for await (const chunk of telemetry.recorder.drain([traceId])) expect(chunk.byteLength).toBeGreaterThan(0);
    await context.with(propagation.extract(context.active(), carrier), () => withSpan(SpanName.FETCH, {}, () => undefined));
    const names: string[] = [];
    for await (const chunk of telemetry.recorder.drain([traceId])) names.push(...[...readSpans(chunk)].map(({ name }) => name));
    expect(names).toEqual([SpanName.FETCH]);
  });

  test('shows failures, and cancelled work as no failure', async () => {
    const failing = (error: Error) => () => withSpan(SpanName.PLAN, {}, () => Promise.reject(error));
    const [failed] = await record(true, failing(Object.assign(new Error('no such file'), { reason: 'NOT_FOUND' })));
    expect(failed).toMatchObject({ error: 'no such file', attributes: { 'error.type': 'NOT_FOUND' } });
    expect(failed?.events.map(({ name }) => name)).toEqual(['exception']);
    const [cancelled] = await record(true, failing(Object.assign(new Error('stopped'), { reason: 'CANCELLED' })));
    expect(cancelled).toMatchObject({ error: undefined, attributes: { [Attribute.CANCELLED]: true } });
  });
});

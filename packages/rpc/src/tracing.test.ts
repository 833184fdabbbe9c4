import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { SecateurError } from '@secateur/core';
import { TensorServiceDefinition } from '@secateur/proto/tensor_service';
import { Attribute, SpanName, startTelemetry, withSpan, type Telemetry } from '@secateur/telemetry';
import { startServer, startTestServer, TestDefinition } from '../test/support.js';
import { checkHealth, fetchResource, serveFetch } from './index.js';

interface OtlpSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly status: { readonly code: number };
  readonly attributes: readonly { readonly key: string; readonly value: Readonly<Record<string, unknown>> }[];
}

const SERVER = 2;
const CLIENT = 3;
const ERROR = 2;

let telemetry: Telemetry;

beforeAll(async () => {
  telemetry = await startTelemetry({ serviceName: 'test', serviceVersion: '0', instanceId: 'test' });
});

afterAll(() => telemetry.shutdown());

/** Runs calls below a recorded root span and returns all spans of its trace. */
async function record(work: () => Promise<unknown>): Promise<OtlpSpan[]> {
  let traceId = '';
  await withSpan(SpanName.JOB, { root: true, attributes: { [Attribute.TRACE_RECORD]: true } }, async (span) => {
    traceId = span.spanContext().traceId;
    await work();
  });
  const spans: OtlpSpan[] = [];
  for await (const chunk of telemetry.recorder.drain([traceId])) {
    const request = JSON.parse(Buffer.from(chunk).toString()) as { resourceSpans: { scopeSpans: { spans: OtlpSpan[] }[] }[] };
    spans.push(...request.resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap((scope) => scope.spans)));
  }
  return spans;
}

function attributesOf(span: OtlpSpan): Record<string, unknown> {
  return Object.fromEntries(span.attributes.map(({ key, value }) => [key, Object.values(value)[0]]));
}

function only(spans: readonly OtlpSpan[], kind: number): OtlpSpan {
  const [span, ...others] = spans.filter((candidate) => candidate.kind === kind);
  if (span === undefined || others.length > 0) throw new Error(`${others.length + 1} spans of kind ${kind}`);
  return span;
}

describe('tracing', () => {
  test('a handler works below the server span, which is below the client span, which is below the caller', async () => {
    await using server = await startTestServer({
      ask: () => withSpan(SpanName.PLAN, {}, () => ({})),
    });
    const channel = server.connect();
    const spans = await record(() => channel.client(TestDefinition).ask({}, { timeoutMs: 5_000 }));
    const parentage = new Map(spans.map((span) => [span.spanId, span]));
    const handler = spans.find(({ name }) => name === SpanName.PLAN)!;
    const path: string[] = [];
    for (let span: OtlpSpan | undefined = handler; span !== undefined; span = parentage.get(span.parentSpanId ?? '')) path.push(span.name);
    expect(path).toEqual([SpanName.PLAN, 'secateur.test.TestService/Ask', 'secateur.test.TestService/Ask', SpanName.JOB]);
    const [host, port] = server.address.split(':');
    for (const kind of [CLIENT, SERVER]) {
      expect(attributesOf(only(spans, kind))).toEqual({
        'rpc.system.name': 'grpc',
        'rpc.method': 'secateur.test.TestService/Ask',
        'rpc.response.status_code': 'OK',
        'server.address': host,
        'server.port': Number(port),
      });
    }
  });

  test('each step of a streaming handler works below its server span, and the spans last as long as the stream', async () => {
    await using server = await startTestServer({
      async *list() {
        for (let offset = 0; offset < 3; offset++) {
          await withSpan(SpanName.COLLECT, {}, () => undefined);
          yield { offset };
        }
      },
    });
    const client = server.connect().client(TestDefinition);
    const spans = await record(async () => {
      for await (const { offset } of client.list({}, { timeoutMs: 5_000 })) expect(offset).toBeLessThan(3);
    });
    const serverSpan = only(spans, SERVER);
    expect(serverSpan.parentSpanId).toBe(only(spans, CLIENT).spanId);
    expect(spans.filter(({ name }) => name === SpanName.COLLECT).map(({ parentSpanId }) => parentSpanId)).toEqual(
      Array(3).fill(serverSpan.spanId),
    );
  });

  test('failures are errors where they are, and mistakes of a caller are none of the server', async () => {
    await using server = await startTestServer({
      ask: ({ offset }) => Promise.reject(new SecateurError(offset === 0 ? 'NOT_FOUND' : 'CORRUPT_DATA', 'no')),
    });
    const client = server.connect().client(TestDefinition);
    const ask = (offset: number) => (): Promise<unknown> => client.ask({ offset }, { timeoutMs: 5_000 }).catch(() => undefined);
    const mistake = await record(ask(0));
    expect(only(mistake, CLIENT).status.code).toBe(ERROR);
    expect(only(mistake, SERVER).status.code).not.toBe(ERROR);
    const fault = await record(ask(1));
    for (const kind of [CLIENT, SERVER]) {
      const span = only(fault, kind);
      expect(span.status.code).toBe(ERROR);
      expect(attributesOf(span)).toMatchObject({ 'rpc.response.status_code': 'DATA_LOSS', 'error.type': 'CORRUPT_DATA' });
    }
  });

  test('a cancelled call did not fail', async () => {
    await using server = await startTestServer({
      async *list() {
        for (let offset = 0; ; offset++) yield { offset };
      },
    });
    const abort = new AbortController();
    const client = server.connect().client(TestDefinition);
    const spans = await record(async () => {
      const stream = client.list({}, { timeoutMs: 5_000, signal: abort.signal });
      await stream.next();
      abort.abort();
      await expect(
        (async () => {
          for (;;)
            await stream.next().then(({ done }) => {
              if (done === true) throw new Error('ended');
            });
        })(),
      ).rejects.toMatchObject({ reason: 'CANCELLED' });
    });
    const client_ = only(spans, CLIENT);
    expect(client_.status.code).not.toBe(ERROR);
    expect(attributesOf(client_)).toMatchObject({ 'rpc.response.status_code': 'CANCELLED' });
  });

  test('a fetch shows its bytes, a health check nothing', async () => {
    const content = Buffer.alloc(3_000_000);
    const source = {
      bytes: content.byteLength,
      read: (offset: number, length: number) => Promise.resolve(content.subarray(offset, offset + length)),
    };
    await using server = await startServer(
      TensorServiceDefinition,
      serveFetch(() => Promise.resolve(source)),
    );
    const channel = server.connect('bulk');
    const spans = await record(async () => {
      await fetchResource(channel, { resource: 'r', bytes: content.byteLength }, { timeoutMs: 5_000 });
      await checkHealth(channel, '', 5_000);
    });
    expect(spans.map(({ name }) => name).sort()).toEqual([
      SpanName.JOB,
      'secateur.v1.TensorService/Fetch',
      'secateur.v1.TensorService/Fetch',
    ]);
    expect(attributesOf(only(spans, SERVER))).toMatchObject({ [Attribute.BYTES]: content.byteLength });
  });
});

import { execFile } from 'node:child_process';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, test } from '@jest/globals';
import { SpanName } from './names.js';
import { otlpProtocol } from './otlp-exporter.js';

/** A process that makes one span and says whether it was recording. */
const PROGRAM = `
import { startTelemetry, withSpan, SpanName } from ${JSON.stringify(new URL('../dist/index.js', import.meta.url))};
const telemetry = await startTelemetry({ serviceName: 'secateur-test', serviceVersion: '1', instanceId: 'here' });
await withSpan(SpanName.JOB, {}, (span) => console.log(span.isRecording()));
await telemetry.shutdown();
`;

interface Received {
  readonly url: string | undefined;
  readonly contentType: string | undefined;
  readonly body: Buffer;
}

async function runWithCollector(environment: Record<string, string>): Promise<{ output: string; received: Received[] }> {
  const received: Received[] = [];
  const collector = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      received.push({ url: request.url, contentType: request.headers['content-type'], body: Buffer.concat(parts) });
      response.end();
    });
  });
  await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
  try {
    const OTEL_EXPORTER_OTLP_ENDPOINT = `http://127.0.0.1:${(collector.address() as AddressInfo).port}`;
    const env = { PATH: process.env['PATH'], OTEL_EXPORTER_OTLP_ENDPOINT, ...environment };
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', PROGRAM], { env });
    return { output: stdout.trim(), received };
  } finally {
    collector.close();
  }
}

describe('OTLP', () => {
  test.each([
    ['http/json', 'application/json'],
    ['http/protobuf', 'application/x-protobuf'],
  ])('spans are exported over %s', async (protocol, contentType) => {
    const { output, received } = await runWithCollector({ OTEL_EXPORTER_OTLP_PROTOCOL: protocol });
    expect(output).toBe('true');
    expect(received).toMatchObject([{ url: '/v1/traces', contentType }]);
    for (const text of [SpanName.JOB, 'secateur-test', 'here']) expect(received[0]!.body.includes(text)).toBe(true);
  });

  test.each([{ OTEL_TRACES_EXPORTER: 'none' }, { OTEL_SDK_DISABLED: 'true' }])('nothing is made or sent with %j', async (environment) => {
    expect(await runWithCollector(environment)).toEqual({ output: 'false', received: [] });
  });

  test.each(['grpc', 'http/protobuf'])('a collector that is away keeps no process from ending well: %s', async (protocol) => {
    const program = `
      import { startTelemetry, withSpan, SpanName } from ${JSON.stringify(new URL('../dist/index.js', import.meta.url))};
      const logger = { warn: ({ err }, message) => console.log(message + ': ' + err.message) };
      const identity = { serviceName: 'secateur-test', serviceVersion: '1', instanceId: 'here' };
      const telemetry = await startTelemetry(identity, { logger });
      await withSpan(SpanName.JOB, {}, () => undefined);
      await telemetry.shutdown();
    `;
    const env = {
      PATH: process.env['PATH'],
      OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1',
      OTEL_EXPORTER_OTLP_PROTOCOL: protocol,
      OTEL_EXPORTER_OTLP_TIMEOUT: '500',
    };
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program], { env });
    expect(stdout).toMatch(/^the last spans were not exported: .*ECONNREFUSED/);
  });

  test('a process whose environment sets up nothing does not load the Node SDK', async () => {
    const program = `
      import { createRequire } from 'node:module';
      import { metrics, propagation } from '@opentelemetry/api';
      import { startTelemetry } from ${JSON.stringify(new URL('../dist/index.js', import.meta.url))};
      const identity = { serviceName: 'secateur-test', serviceVersion: '1', instanceId: 'here' };
      const telemetry = await startTelemetry(identity, { metrics: true });
      metrics.getMeter('secateur').createCounter('cuts').add(3);
      const measured = (await telemetry.readMetrics()).includes('cuts_total 3');
      const sdk = Object.keys(createRequire(process.cwd() + '/').cache).some((file) => file.includes('/sdk-node/'));
      console.log(JSON.stringify({ sdk, measured, fields: propagation.fields() }));
      await telemetry.shutdown();
    `;
    const run = async (env: Record<string, string>) => {
      const args = ['--input-type=module', '--eval', program];
      const { stdout } = await promisify(execFile)(process.execPath, args, { env, cwd: fileURLToPath(new URL('.', import.meta.url)) });
      return JSON.parse(stdout) as unknown;
    };
    const fields = ['traceparent', 'tracestate', 'baggage'];
    expect(await run({})).toEqual({ sdk: false, measured: true, fields });
    expect(await run({ OTEL_TRACES_EXPORTER: 'none' })).toEqual({ sdk: true, measured: true, fields });
  });

  test('an unknown protocol is refused by name', async () => {
    await expect(runWithCollector({ OTEL_EXPORTER_OTLP_PROTOCOL: 'pigeon' })).rejects.toThrow(
      'OTEL_EXPORTER_OTLP_PROTOCOL is "pigeon"; it can be grpc, http/protobuf or http/json.',
    );
  });
});

describe('the standard environment variables', () => {
  const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318' };
  test.each([
    [{}, undefined],
    [endpoint, 'http/protobuf'],
    [{ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://collector:4318/v1/traces' }, 'http/protobuf'],
    [{ OTEL_TRACES_EXPORTER: 'otlp' }, 'http/protobuf'],
    [{ ...endpoint, OTEL_TRACES_EXPORTER: 'none' }, undefined],
    [{ ...endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }, 'grpc'],
    [{ ...endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc', OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'http/json' }, 'http/json'],
  ])('%j choose %s', (environment, protocol) => {
    expect(otlpProtocol(environment)).toBe(protocol);
  });
});

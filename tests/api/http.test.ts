/** Jobs over HTTP, with real processes: the same jobs that gRPC sees. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { GetReportResponse } from '@secateur/proto/pruning_service';
import { Cluster } from '../support/cluster.js';
import { pruneSpec } from '../support/jobs.js';
import { fixturePath, modelPath, withTemporaryFolder } from '../support/paths.js';
import { readEvents, type ServerSentEvent } from '../support/server-sent-events.js';

let cluster: Cluster;
let url: string;

beforeAll(async () => {
  cluster = await Cluster.start({ nodes: 1, http: true });
  url = `http://${cluster.httpAddress}`;
});

afterAll(() => cluster[Symbol.asyncDispose]());

async function get(path: string): Promise<unknown> {
  return (await fetch(`${url}${path}`)).json();
}

async function post(path: string, body: unknown): Promise<{ readonly status: number; readonly json: unknown }> {
  const response = await fetch(`${url}${path}`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  });
  return { status: response.status, json: await response.json() };
}

async function watch(jobId: string, headers: Record<string, string> = {}): Promise<ServerSentEvent[]> {
  const events: ServerSentEvent[] = [];
  for await (const event of readEvents(await fetch(`${url}/v1/jobs/${jobId}:watch`, { headers }))) events.push(event);
  return events;
}

function jsonSpec(output: string): unknown {
  const calibration = { path: fixturePath('calibration', 'books-opt-calibration.safetensors'), samples: 16 };
  return { prune: { model: modelPath('books-opt'), output, sparsity: 0.7, calibration }, recordTrace: true };
}

test('a job is planned, created, watched and reported', () =>
  withTemporaryFolder(async (folder) => {
    const spec = jsonSpec(join(folder, 'pruned'));
    expect(await post('/v1/jobs:plan', { spec })).toMatchObject({ status: 200, json: { plan: expect.anything() } });
    expect(await post('/v1/jobs', { jobId: 'over-http', spec })).toMatchObject({ status: 200, json: { job: { id: 'over-http' } } });
    expect(await post('/v1/jobs', { jobId: 'over-http', spec })).toMatchObject({ status: 200 });
    expect(await post('/v1/jobs', { jobId: 'over-http', spec: jsonSpec(join(folder, 'other')) })).toMatchObject({
      status: 409,
      json: { code: 6 },
    });

    const events = await watch('over-http');
    const numbered = events.filter(({ event }) => event === 'message');
    expect(numbered.map(({ id }) => Number(id))).toEqual(numbered.map((_, index) => index + 1));
    expect(numbered.at(-1)?.data).toMatchObject({ event: { stateChanged: { state: 'JOB_STATE_SUCCEEDED' } } });
    expect(events.at(-1)?.event).toBe('end');
    const middle = Math.floor(numbered.length / 2);
    const rest = await watch('over-http', { 'Last-Event-ID': String(middle) });
    expect(rest.slice(0, -1)).toEqual(numbered.slice(middle));
    // As who goes on with a watch gives it, so as not to go on with another job.
    const { jobCreatedAt } = numbered[0]?.data as { readonly jobCreatedAt: string };
    const goOn = (createdAt: string): Promise<Response> =>
      fetch(`${url}/v1/jobs/over-http:watch?jobCreatedAt=${createdAt}`, { headers: { 'Last-Event-ID': String(numbered.length) } });
    expect((await goOn(jobCreatedAt)).status).toBe(204);
    expect((await goOn('2001-02-03T04:05:06.789Z')).status).toBe(404);
    expect(await get(`/v1/jobs/over-http?jobCreatedAt=${jobCreatedAt}`)).toMatchObject({ job: { createdAt: jobCreatedAt } });

    expect(await get('/v1/jobs/over-http')).toMatchObject({ job: { state: 'JOB_STATE_SUCCEEDED', spec: { prune: { sparsity: 0.7 } } } });
    expect(await get('/v1/jobs?pageSize=1')).toMatchObject({ jobs: [{ id: 'over-http' }], nextPageToken: '' });
    expect(GetReportResponse.fromJSON(await get('/v1/jobs/over-http/report'))).toEqual(await cluster.client.getReport('over-http'));
    const trace = await (await fetch(`${url}/v1/jobs/over-http/trace`, { headers: { Accept: 'application/x-ndjson' } })).text();
    const [first = ''] = trace.split('\n');
    const { otlpJson } = JSON.parse(first) as { otlpJson: string };
    expect(JSON.parse(Buffer.from(otlpJson, 'base64').toString())).toMatchObject({ resourceSpans: expect.any(Array) });
  }));

test('a job of gRPC is seen and cancelled, and its watcher told', () =>
  withTemporaryFolder(async (folder) => {
    await cluster.client.createJob({ jobId: 'over-grpc', spec: pruneSpec('books-qwen2', join(folder, 'pruned')) });
    const watching = watch('over-grpc');
    expect(await post('/v1/jobs/over-grpc:cancel', {})).toMatchObject({ status: 200, json: { job: { id: 'over-grpc' } } });
    const [end, last] = (await watching).reverse();
    expect(end?.event).toBe('end');
    expect(last?.data).toMatchObject({ event: { stateChanged: { state: 'JOB_STATE_CANCELLED' } } });
    expect(await get('/v1/jobs/over-grpc/report')).toMatchObject({ code: 9, details: [{ reason: 'FAILED_PRECONDITION' }] });
  }));

test('a wrong spec names its fields', async () => {
  const spec = { prune: { model: modelPath('books-opt'), output: '/nowhere', sparsity: 2 } };
  const { status, json } = await post('/v1/jobs', { spec });
  expect(status).toBe(400);
  expect(json).toMatchObject({
    code: 3,
    details: [{ '@type': 'type.googleapis.com/google.rpc.ErrorInfo' }, { fieldViolations: expect.any(Array) }],
  });
});

test('what was done is measured', async () => {
  const orchestrator = await (await fetch(`${url}/metrics`)).text();
  for (const line of [
    /^secateur_jobs\{secateur_job_state="SUCCEEDED"\} 1$/m,
    /^secateur_jobs\{secateur_job_state="CANCELLED"\} 1$/m,
    /^secateur_layers_pending 0$/m,
    /^secateur_layer_duration_count 4$/m,
    new RegExp(`^secateur_tokens_total ${4 * 16 * 256}$`, 'm'),
    /^secateur_fetch_sent_total [1-9]\d*$/m,
    /^secateur_nodes\{secateur_node_healthy="true"\} 1$/m,
    /^rpc_client_call_duration_count\{rpc_method="secateur.v1.KernelService\/OpenSession",rpc_response_status_code="OK"\} [1-9]\d*$/m,
    /^http_server_request_duration_count\{http_request_method="POST",http_route="\/v1\/jobs",http_response_status_code="409"\} 1$/m,
  ]) {
    expect([line, orchestrator.split('\n').filter((found) => line.test(found))]).toEqual([line, [expect.any(String)]]);
  }
  const node = await (await fetch(`http://${cluster.nodesHttp[0] ?? ''}/metrics`)).text();
  for (const line of [
    /^secateur_node_memory_budget 2147483648$/m,
    /^secateur_node_sessions \d+$/m,
    /^secateur_engine_device_time_total\{secateur_engine_phase="gemm"\} [\d.]+$/m,
  ]) {
    expect(node).toMatch(line);
  }
});

import { once } from 'node:events';
import { request, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { afterEach, describe, expect, test } from '@jest/globals';
import { SecateurError } from '@secateur/core';
import { JobState } from '@secateur/proto/job';
import { PruningServiceDefinition } from '@secateur/proto/pruning_service';
import { PruningServiceRoutes } from '@secateur/proto/pruning_service_routes';
import { ANYBODY, toStatusProto, type CallContext, type ServiceImplementation } from '@secateur/rpc';
import { HttpServer, type HttpServerOptions } from './http-server.js';

type Handlers = Partial<ServiceImplementation<PruningServiceDefinition>>;

let server: HttpServer;

afterEach(() => server.shutdown({ graceMs: 100 }));

/** A server whose service has these handlers, and its URL. */
async function serve(
  handlers: Handlers,
  options: Partial<HttpServerOptions> = {},
  timeoutsMs: Parameters<HttpServer['addService']>[3] = {},
): Promise<string> {
  server = new HttpServer({ readMetrics: () => Promise.resolve('up 1\n'), ...options });
  const service = handlers as ServiceImplementation<PruningServiceDefinition>;
  server.addService(PruningServiceDefinition, PruningServiceRoutes, service, timeoutsMs);
  return `http://${await server.listen('127.0.0.1:0')}`;
}

const JSON_TYPE = { 'Content-Type': 'application/json' };

function post(url: string, body: string, headers: Record<string, string> = JSON_TYPE): Promise<Response> {
  return fetch(url, { method: 'POST', body, headers });
}

/** Its handler never answers; resolves with the reason it is aborted for. */
function waiting(): {
  handler: (request: unknown, context: CallContext) => Promise<never>;
  started: Promise<void>;
  reason: Promise<unknown>;
} {
  let start: () => void;
  let stop: (reason: unknown) => void;
  const started = new Promise<void>((resolve) => (start = resolve));
  const reason = new Promise<unknown>((resolve) => (stop = resolve));
  const handler = (_request: unknown, { signal }: CallContext): Promise<never> => {
    start();
    return new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => {
        stop(signal.reason);
        reject(signal.reason as Error);
      });
    });
  };
  return { handler, started, reason };
}

const EVENT = { event: { sequence: 7, event: { $case: 'nodeJoined', value: { address: 'a:1', name: 'n' } } } } as const;

describe('requests', () => {
  test('fields come from the path, the query and the body, under either of their names', async () => {
    const seen: unknown[] = [];
    const url = await serve({
      listJobs: (request) => Promise.resolve(void seen.push(request) as never).then(() => ({})),
      cancelJob: (request) => Promise.resolve(void seen.push(request) as never).then(() => ({})),
      createJob: (request) => Promise.resolve(void seen.push(request) as never).then(() => ({})),
    });
    for (const query of ['page_size=3&page_token=b', 'pageSize=3&pageToken=b']) await fetch(`${url}/v1/jobs?${query}`);
    await fetch(`${url}/v1/jobs?states=JOB_STATE_QUEUED&states=JOB_STATE_RUNNING`);
    for (const body of ['', '{}']) await post(`${url}/v1/jobs/a%20b:cancel`, body);
    await post(`${url}/v1/jobs`, '{"job_id":"c","spec":{"evaluate":{"data":{"seed":"9007199254740991","samples":2}}}}');
    expect(seen).toMatchObject([
      { pageSize: 3, pageToken: 'b' },
      { pageSize: 3, pageToken: 'b' },
      { states: [JobState.QUEUED, JobState.RUNNING] },
      { jobId: 'a b' },
      { jobId: 'a b' },
      { jobId: 'c', spec: { kind: { $case: 'evaluate', value: { data: { seed: 9007199254740991, samples: 2 } } } } },
    ]);
  });

  test.each([
    ['an unknown field', '{"spec":{"prune":{"modell":"x"}}}', '"modell" is no field of PruneSpec', 'modell'],
    ['a field of another message', '{"spec":{"data":{}}}', '"data" is no field of JobSpec', 'data'],
    ['__proto__', '{"__proto__":{"jobId":"x"}}', '"__proto__" is no field of CreateJobRequest', '__proto__'],
    ['a wrong type', '{"spec":{"prune":{"sparsity":"much"}}}', 'PruneSpec.sparsity: expected number', 'PruneSpec.sparsity'],
    ['a number out of range', '{"spec":{"maximumNodes":-1}}', 'JobSpec.maximum_nodes: ', 'JobSpec.maximum_nodes'],
    ['an unknown name of an enum', '{"spec":{"prune":{"preset":"QUICK"}}}', 'QUICK', 'Preset'],
    ['two fields of which there can be one', '{"spec":{"prune":{},"evaluate":{}}}', 'set multiple times', 'JobSpec.kind'],
    ['a field twice', '{"jobId":"a","jobId":"b"}', 'duplicate', 'CreateJobRequest'],
    ['no JSON', '{"jobId":', 'CreateJobRequest: ', 'CreateJobRequest'],
    ['no object', '[]', 'CreateJobRequest: ', 'CreateJobRequest'],
    ['a very deep value', `{"spec":${'['.repeat(200_000)}${']'.repeat(200_000)}}`, 'JobSpec', 'JobSpec'],
  ])('%s is refused by name', async (_what, body, message, field) => {
    const url = await serve({ createJob: () => Promise.resolve({}) });
    const response = await post(`${url}/v1/jobs`, body);
    expect(response.status).toBe(400);
    const error = (await response.json()) as { message: string; details: { fieldViolations: { field: string }[] }[] };
    expect(error).toMatchObject({ code: 3, message: expect.stringContaining(message) });
    expect(error.details[1]?.fieldViolations[0]?.field).toContain(field);
  });

  test.each([
    ['GET', '/v1/nothing', 404, undefined],
    ['DELETE', '/v1/jobs', 405, undefined],
    ['GET', '/v1/jobs/%ff', 404, undefined],
    ['GET', '/v1/jobs?pageSize=x', 400, undefined],
    ['GET', '/v1/jobs?nothing=1', 400, undefined],
    ['GET', '/v1/jobs/a?jobId=b', 400, undefined],
    ['POST', '/v1/jobs/a:cancel', 400, '{"jobId":"b"}'],
    ['POST', '/v1/jobs/a:cancel?jobId=b', 400, '{}'],
    ['POST', '/v1/jobs', 413, ' '.repeat((1 << 20) + 1)],
    ['POST', '/v1/jobs', 400, Buffer.from('{"jobId":"\xff"}', 'latin1')],
  ])('%s %s is %i', async (method, path, status, body) => {
    const url = await serve({});
    const response = await fetch(`${url}${path}`, { method, headers: JSON_TYPE, ...(body === undefined ? {} : { body }) });
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ code: expect.any(Number), message: expect.any(String) });
  });

  test('a job that failed is told with its details', async () => {
    const error = toStatusProto(
      new SecateurError('NOT_FOUND', 'There is no model.', { violations: [{ field: 'model', description: 'x' }] }),
    );
    const url = await serve({ getJob: () => Promise.resolve({ job: { id: 'a', error } }) });
    const response = await fetch(`${url}/v1/jobs/a`);
    expect(await response.json()).toMatchObject({
      job: {
        error: { code: 5, message: 'There is no model.', details: [{ reason: 'NOT_FOUND' }, { fieldViolations: [{ field: 'model' }] }] },
      },
    });
  });

  test('forms and pages of other sites change nothing', async () => {
    const url = await serve({ cancelJob: () => Promise.resolve({}) });
    expect((await post(`${url}/v1/jobs`, '{}', { 'Content-Type': 'text/plain' })).status).toBe(415);
    expect((await post(`${url}/v1/jobs/a:cancel`, '', { Origin: 'http://elsewhere.example' })).status).toBe(403);
    expect((await post(`${url}/v1/jobs/a:cancel`, '', { Origin: url })).status).toBe(200);
  });

  test('a name of another site that means this machine is not taken for it', async () => {
    const handlers: Handlers = { listJobs: () => Promise.resolve({}), cancelJob: () => Promise.resolve({}) };
    const call = async (url: string, method: string, path: string, host: string): Promise<number | undefined> => {
      const sent = request(`${url}${path}`, { method, headers: { Host: host, Origin: `http://${host}` } }).end();
      const [response] = (await once(sent, 'response')) as [IncomingMessage];
      response.resume();
      return response.statusCode;
    };
    const url = await serve(handlers);
    const { port } = new URL(url);
    for (const name of ['127.0.0.1', 'localhost', '[::1]'])
      expect(await call(url, 'POST', '/v1/jobs/a:cancel', `${name}:${port}`)).toBe(200);
    for (const name of ['elsewhere.example', 'localhost.elsewhere.example', 'a b']) {
      expect(await call(url, 'POST', '/v1/jobs/a:cancel', `${name}:${port}`)).toBe(403);
      expect(await call(url, 'GET', '/v1/jobs', `${name}:${port}`)).toBe(403);
      expect(await call(url, 'GET', '/healthz', `${name}:${port}`)).toBe(200);
    }
    // Such a page has no token, and where the network keeps everybody else out there is no such page.
    for (const options of [{ access: { admit: () => Promise.resolve(ANYBODY) } }, { insecure: true }]) {
      await server.shutdown({ graceMs: 100 });
      expect(await call(await serve(handlers, options), 'GET', '/v1/jobs', 'elsewhere.example')).toBe(200);
    }
  });
});

describe('calls', () => {
  test('handlers know who calls; who may not is told so', async () => {
    const callers: unknown[] = [];
    const ended: unknown[] = [];
    const access: HttpServerOptions['access'] = {
      admit: ({ authorization }) =>
        authorization === 'Bearer right'
          ? Promise.resolve({ name: 'ann', tenant: 'blue', administrator: false })
          : Promise.reject(new SecateurError('UNAUTHENTICATED', 'No such token.')),
    };
    const listNodes: Handlers['listNodes'] = (_request, { caller, method, peer }) => {
      callers.push(caller, method, peer.startsWith('127.0.0.1:'));
      return Promise.resolve({});
    };
    const url = await serve(
      { listNodes },
      { access, onCallEnd: ({ caller, method, outcome }) => ended.push(caller.name, method, outcome) },
    );
    expect((await fetch(`${url}/v1/nodes`, { headers: { Authorization: 'Bearer right' } })).status).toBe(200);
    expect(callers).toEqual([{ name: 'ann', tenant: 'blue', administrator: false }, 'secateur.v1.PruningService/ListNodes', true]);
    expect(ended).toEqual(['ann', 'secateur.v1.PruningService/ListNodes', 'OK']);
    const refused = await fetch(`${url}/v1/nodes`);
    expect([refused.status, refused.headers.get('www-authenticate')]).toEqual([401, 'Bearer']);
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
  });

  test('nobody is asked where nobody asks', async () => {
    let caller: unknown;
    const url = await serve({ listNodes: (_request, context) => Promise.resolve({}).finally(() => (caller = context.caller)) });
    await fetch(`${url}/v1/nodes`);
    expect(caller).toEqual(ANYBODY);
  });

  test('a defect stays inside and is logged', async () => {
    const logged: unknown[] = [];
    const logger = { error: (fields: object) => logged.push(fields) };
    const url = await serve({ listNodes: () => Promise.reject(new Error('secret')) }, { logger });
    const response = await fetch(`${url}/v1/nodes`);
    expect(response.status).toBe(500);
    expect(await response.text()).not.toContain('secret');
    expect(logged).toMatchObject([{ err: { message: 'secret' }, method: 'secateur.v1.PruningService/ListNodes' }]);
  });

  test('the deadline ends a call', async () => {
    const { handler } = waiting();
    const url = await serve({ listNodes: handler }, {}, { listNodes: 20 });
    const response = await fetch(`${url}/v1/nodes`);
    expect([response.status, await response.json()]).toMatchObject([504, { code: 4 }]);
  });

  test('a client that goes away ends its call', async () => {
    const { handler, started, reason } = waiting();
    const url = await serve({ listNodes: handler });
    const leave = new AbortController();
    const answer = fetch(`${url}/v1/nodes`, { signal: leave.signal });
    await started;
    leave.abort();
    await expect(answer).rejects.toThrow();
    expect(await reason).toMatchObject({ reason: 'CANCELLED' });
  });

  test('shutting down ends calls and is told to who asks', async () => {
    const { handler, started } = waiting();
    const url = await serve({ listNodes: handler });
    const ready = async (): Promise<number> => (await fetch(`${url}/readyz`)).status;
    expect(await ready()).toBe(503);
    server.setServing(true);
    expect(await ready()).toBe(200);
    const answer = fetch(`${url}/v1/nodes`);
    await started;
    const closed = server.shutdown({ graceMs: 10_000 });
    expect((await answer).status).toBe(503);
    await closed;
    await expect(fetch(`${url}/readyz`)).rejects.toThrow();
  });
});

describe('streams', () => {
  test('messages are events with the number to go on after', async () => {
    const watchJob: Handlers['watchJob'] = async function* () {
      yield await Promise.resolve(EVENT);
    };
    const url = await serve({ watchJob });
    const response = await fetch(`${url}/v1/jobs/a:watch`);
    expect(response.headers.get('content-type')).toBe('text/event-stream');
    const data = '{"event":{"sequence":"7","nodeJoined":{"address":"a:1","name":"n"}}}';
    expect(await response.text()).toBe(`id: 7\ndata: ${data}\n\nevent: end\ndata: {}\n\n`);
    const lines = await fetch(`${url}/v1/jobs/a:watch`, { headers: { Accept: 'application/x-ndjson' } });
    expect(await lines.text()).toBe(`${data}\n`);
  });

  test('a stream goes on after the last event, whatever the query of the first connection was', async () => {
    const after: number[] = [];
    const watchJob: Handlers['watchJob'] = async function* ({ afterSequence }) {
      after.push(afterSequence);
      if (afterSequence < 7) yield await Promise.resolve(EVENT);
    };
    const url = await serve({ watchJob });
    const watch = (id: string): Promise<Response> => fetch(`${url}/v1/jobs/a:watch?afterSequence=2`, { headers: { 'Last-Event-ID': id } });
    expect((await watch('6')).status).toBe(200);
    // What an event source needs to see to stop connecting again.
    expect((await watch('7')).status).toBe(204);
    expect((await watch('x')).status).toBe(400);
    expect(after).toEqual([6, 7]);
  });

  test('an error before the first message is an answer, later it is an event', async () => {
    const watchJob: Handlers['watchJob'] = async function* ({ jobId }) {
      if (jobId === 'b') yield await Promise.resolve(EVENT);
      throw new SecateurError('NOT_FOUND', 'Gone.');
    };
    const url = await serve({ watchJob });
    expect((await fetch(`${url}/v1/jobs/a:watch`)).status).toBe(404);
    expect(await (await fetch(`${url}/v1/jobs/b:watch`)).text()).toMatch(/\n\nevent: failure\ndata: \{"code":5,"message":"Gone."/);
    const lines = await fetch(`${url}/v1/jobs/b:watch`, { headers: { Accept: 'application/x-ndjson' } });
    expect(JSON.parse((await lines.text()).split('\n')[1] ?? '')).toMatchObject({ error: { code: 5 } });
  });

  test('a stream without messages begins soon and ends with the server', async () => {
    const { handler } = waiting();
    const watchJob: Handlers['watchJob'] = async function* (request, context) {
      yield await handler(request, context);
    };
    const url = await serve({ watchJob });
    const response = await fetch(`${url}/v1/jobs/a:watch`);
    expect(response.status).toBe(200);
    void server.shutdown({ graceMs: 10_000 });
    expect(await response.text()).toMatch(/^event: failure\ndata: \{"code":14/);
  });

  test('a reader that does not read stops the handler from making more, and one that goes away ends it', async () => {
    let made = 0;
    let stalled: (() => void) | undefined;
    let ended: (() => void) | undefined;
    const stalling = new Promise<void>((resolve) => (stalled = resolve));
    const end = new Promise<void>((resolve) => (ended = resolve));
    const otlpJson = Buffer.alloc(1 << 20);
    const getTrace: Handlers['getTrace'] = async function* () {
      let timer: NodeJS.Timeout | undefined;
      try {
        for (; made < 1000; made++) {
          clearTimeout(timer);
          // Nobody asked for more for this long: the buffers on the way are full.
          timer = setTimeout(() => stalled?.(), 500);
          yield await Promise.resolve({ otlpJson });
        }
      } finally {
        clearTimeout(timer);
        ended?.();
      }
    };
    const { port } = new URL(await serve({ getTrace }));
    const socket = connect(Number(port), '127.0.0.1');
    await once(socket, 'connect');
    socket.write('GET /v1/jobs/a/trace HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await stalling;
    expect(made).toBeLessThan(50);
    socket.destroy();
    await end;
    expect(made).toBeLessThan(50);
  });
});

test('the metrics and the description are there to be read', async () => {
  const url = await serve({});
  expect(await (await fetch(`${url}/metrics`)).text()).toBe('up 1\n');
  expect(await (await fetch(`${url}/openapi.json`)).json()).toMatchObject({ openapi: '3.1.0' });
});

test('methods are not served in the clear to others unless that is asked for', async () => {
  await serve({});
  const others = (options: Partial<HttpServerOptions>): HttpServer =>
    new HttpServer({ readMetrics: () => Promise.resolve(''), ...options });
  const withMethods = others({});
  withMethods.addService(PruningServiceDefinition, PruningServiceRoutes, {} as ServiceImplementation<PruningServiceDefinition>);
  await expect(withMethods.listen('0.0.0.0:0')).rejects.toMatchObject({
    reason: 'INVALID_REQUEST',
    violations: [{ field: '--http-listen' }],
  });
  const withoutMethods = others({});
  expect(await withoutMethods.listen('0.0.0.0:0')).toMatch(/^0\.0\.0\.0:\d+$/);
  await withoutMethods.shutdown({ graceMs: 100 });
});

test('an address that is taken is named', async () => {
  const url = await serve({});
  const other = new HttpServer({ readMetrics: () => Promise.resolve('') });
  const { host } = new URL(url);
  await expect(other.listen(host)).rejects.toMatchObject({ reason: 'FAILED_PRECONDITION', message: expect.stringContaining(host) });
});

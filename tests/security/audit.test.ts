/** The audit log tells of everything that was done to jobs, whoever did it and however; of real processes. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { newToken } from '@secateur/access';
import { JobSpec } from '@secateur/proto/job';
import { Cluster, type ServiceProcess } from '../support/cluster.js';
import { eventually, pruneSpec } from '../support/jobs.js';
import { temporaryFolder, type TemporaryFolder } from '../support/paths.js';
import { PostgresServer } from '../support/postgres-server.js';

const alice = newToken({ name: 'alice', tenant: 'research', role: 'user' });
const METHOD = 'secateur.v1.PruningService/';

interface AuditLine {
  readonly caller: string;
  readonly tenant: string;
  readonly method: string;
  readonly jobId: string;
  readonly peer?: string;
  readonly outcome: string;
}

let folder: TemporaryFolder;
let database: PostgresServer;
let cluster: Cluster;

beforeAll(async () => {
  folder = await temporaryFolder();
  database = await PostgresServer.start();
  const tokens = join(folder.path, 'tokens.json');
  await writeFile(tokens, JSON.stringify([alice.entry]));
  // Jobs need no node: they wait for one until they are stopped.
  cluster = await Cluster.start({
    nodes: 0,
    unreachable: 1,
    http: true,
    state: database.url,
    serve: ['--tokens', tokens],
    client: { token: alice.token },
  });
});
afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

function auditOf({ output }: ServiceProcess): AuditLine[] {
  return output
    .split('\n')
    .filter((line) => line.includes('"audit":true') && line.endsWith('}'))
    .map((line) => JSON.parse(line) as AuditLine);
}

async function http(verb: string, path: string, body?: unknown, token = alice.token): Promise<number> {
  const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' };
  const init = body === undefined ? {} : { body: JSON.stringify(body) };
  const response = await fetch(`http://${cluster.httpAddress}/v1/jobs${path}`, { method: verb, headers, ...init });
  await response.text();
  return response.status;
}

test('every change by HTTP is in the audit log, also one that is refused, and no reading', async () => {
  const spec = JobSpec.toJSON(pruneSpec('books-opt', join(folder.path, 'pruned')));
  expect(await http('POST', '', { jobId: 'job', spec })).toBe(200);
  expect(await http('GET', '')).toBe(200);
  expect(await http('GET', '/job')).toBe(200);
  expect(await http('POST', '/job:pause', {})).toBe(200);
  expect(await http('POST', '/job:resume', {})).toBe(200);
  expect(await http('DELETE', '/job')).toBe(400);
  expect(await http('POST', '/job:cancel', {})).toBe(200);
  expect(await http('DELETE', '/job')).toBe(200);
  expect(await http('DELETE', '/job')).toBe(404);
  expect(await http('POST', '/job:cancel', {}, newToken(alice.entry).token)).toBe(401);
  await eventually(() => auditOf(cluster.orchestrator).length >= 8, 'all lines came');
  const lines = auditOf(cluster.orchestrator);
  expect(lines.map(({ method, outcome }) => [method.replace(METHOD, ''), outcome])).toEqual([
    ['CreateJob', 'OK'],
    ['PauseJob', 'OK'],
    ['ResumeJob', 'OK'],
    ['DeleteJob', 'FAILED_PRECONDITION'],
    ['CancelJob', 'OK'],
    ['DeleteJob', 'OK'],
    ['DeleteJob', 'NOT_FOUND'],
    ['CancelJob', 'UNAUTHENTICATED'],
  ]);
  for (const line of lines.slice(0, -1)) {
    expect(line).toMatchObject({ caller: 'alice', tenant: 'research', jobId: 'job', peer: expect.stringContaining('127.0.0.1:') });
  }
  expect(cluster.orchestrator.output).not.toContain(alice.token);
});

test('that a job is forgotten when its time to live is over is in the audit log', async () => {
  const spec = { ...pruneSpec('books-opt', join(folder.path, 'short')), timeToLiveSeconds: 1 };
  await cluster.client.createJob({ jobId: 'short-lived', spec });
  const { expiresAt } = await cluster.client.cancelJob('short-lived');
  await cluster.orchestrator.signal('SIGTERM');
  await eventually(() => Date.now() > expiresAt!.seconds * 1000 + expiresAt!.nanos / 1e6, 'its time to live is over');
  // It is looked for at the start, and every minute.
  const { process: restarted, client } = await cluster.addReplica();
  await eventually(() => auditOf(restarted).length > 0, 'it is told of');
  expect(auditOf(restarted)).toMatchObject([
    { caller: 'time-to-live', tenant: 'research', method: `${METHOD}DeleteJob`, jobId: 'short-lived', outcome: 'OK' },
  ]);
  await expect(client.getJob('short-lived')).rejects.toMatchObject({ reason: 'NOT_FOUND' });
});

/** What a tenant can learn of the jobs of another one, and do to them, by gRPC and by HTTP: nothing. */
import { mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { newToken } from '@secateur/access';
import { PruningClient } from '@secateur/client';
import { SecateurError } from '@secateur/core';
import { Allocation } from '@secateur/proto/allocation';
import { JobSpec, JobState, TokenSource, type Job } from '@secateur/proto/job';
import { PruningServiceDefinition } from '@secateur/proto/pruning_service';
import { PruningServiceRoutes } from '@secateur/proto/pruning_service_routes';
import { connect, toStatusProto, type Channel } from '@secateur/rpc';
import { Cluster } from '../support/cluster.js';
import { evaluateSpec, prune, pruneSpec } from '../support/jobs.js';
import { fixturePath, modelPath, temporaryFolder, type TemporaryFolder } from '../support/paths.js';

type Method = keyof typeof PruningServiceDefinition.methods;

/** What there is to ask of every method, beside the job. One that is not here fails the first test: think of tenants when adding it. */
const NAMES_A_JOB: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  getJob: {},
  watchJob: { afterSequence: 1 },
  cancelJob: {},
  pauseJob: {},
  resumeJob: {},
  deleteJob: { deleteOutput: true },
  getReport: {},
  getTrace: {},
};
/** They have tests of their own below, but for the last two: a plan is of no job, and nodes are everybody's. */
const NAMES_NONE = ['createJob', 'listJobs', 'planJob', 'listNodes'];

const TIMEOUT_MS = 20_000;

const alice = newToken({ name: 'alice', tenant: 'research', role: 'user' });
const mallory = newToken({ name: 'mallory', tenant: 'elsewhere', role: 'user' });
const carol = newToken({ name: 'carol', tenant: 'confined', role: 'user' });

let folder: TemporaryFolder;
let cluster: Cluster;
/** Of alice. */
let owner: PruningClient;
/** Of mallory. */
let channel: Channel;
let stranger: PruningClient;
/** Specs of alice's jobs, by id: one in each state that lasts. */
let specs: Readonly<Record<string, JobSpec>>;
const closed: { close: () => void }[] = [];

const IDS = ['secret-done', 'secret-broken', 'secret-stopped', 'secret-aside'] as const;
/** As long as the others, so that answers are equal to the byte. */
const absent = (id: string): string => id.replace('secret', 'absent');

function as(token: string): PruningClient {
  const client = PruningClient.connect(cluster.address, { token });
  closed.push(client);
  return client;
}

function spec(output: string, changes: Parameters<typeof pruneSpec>[2] = {}): JobSpec {
  const path = fixturePath('calibration', 'books-opt-calibration.safetensors');
  const calibration = TokenSource.fromPartial({ path, samples: 8, sequenceLength: 256 });
  return pruneSpec('books-opt', output, { allocation: Allocation.UNIFORM, calibration, ...changes });
}

beforeAll(async () => {
  folder = await temporaryFolder();
  const tokens = join(folder.path, 'tokens.json');
  await writeFile(tokens, JSON.stringify([alice.entry, mallory.entry, carol.entry]));
  const tenants = join(folder.path, 'tenants.json');
  for (const name of ['confined', 'research']) await mkdir(join(folder.path, name));
  await writeFile(tenants, JSON.stringify({ tenants: { confined: { roots: [join(folder.path, 'confined')] } } }));
  cluster = await Cluster.start({
    nodes: 1,
    http: true,
    serve: ['--tokens', tokens, '--tenants', tenants, '--calls-per-second', '1000'],
    client: { token: alice.token },
  });
  owner = cluster.client;
  channel = connect(cluster.address, { kind: 'control', token: mallory.token });
  closed.push(channel);
  stranger = as(mallory.token);

  const output = (id: string): string => join(folder.path, 'research', id);
  specs = {
    'secret-done': { ...spec(output('done')), recordTrace: true },
    'secret-broken': spec(output('broken'), { model: join(folder.path, 'research') }),
    'secret-stopped': spec(output('stopped')),
    'secret-aside': spec(output('aside')),
  };
  await prune(owner, 'secret-done', specs['secret-done']!);
  for (const jobId of IDS.slice(1)) await owner.createJob({ jobId, spec: specs[jobId]! });
  await owner.cancelJob('secret-stopped');
  await owner.pauseJob('secret-aside');
  expect(await owner.waitForJob('secret-broken')).toMatchObject({ state: JobState.FAILED });
});
afterAll(async () => {
  for (const one of closed) one.close();
  await cluster[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

async function jobsOf(client: PruningClient): Promise<Job[]> {
  const jobs: Job[] = [];
  for await (const job of client.listJobs()) jobs.push(job);
  return jobs;
}

/** All that a caller gets of a call by gRPC. */
async function callByGrpc(method: string, request: object): Promise<unknown> {
  const call = channel.client(PruningServiceDefinition)[method as Method] as (
    request: object,
    options: object,
  ) => Promise<unknown> | AsyncIterable<unknown>;
  try {
    const answer = call(request, { timeoutMs: TIMEOUT_MS });
    if (!(Symbol.asyncIterator in answer)) return { answer: await answer };
    const messages: unknown[] = [];
    for await (const message of answer) messages.push(message);
    return { answer: messages };
  } catch (error) {
    if (!(error instanceof SecateurError)) throw error;
    return { reason: error.reason, status: toStatusProto(error) };
  }
}

/** The same by HTTP, with all headers that do not tell the time. */
async function callByHttp(
  method: string,
  { jobId, ...rest }: { readonly jobId: string } & Readonly<Record<string, unknown>>,
  who = mallory,
) {
  const { verb, path, hasBody } = PruningServiceRoutes[method as Method];
  const query = hasBody
    ? ''
    : `?${new URLSearchParams(Object.entries(rest).map(([key, value]): [string, string] => [key, String(value)])).toString()}`;
  const response = await fetch(`http://${cluster.httpAddress}${path.replace('{job_id}', jobId)}${query}`, {
    method: verb,
    headers: { Authorization: `Bearer ${who.token}`, 'Content-Type': 'application/json' },
    ...(hasBody ? { body: JSON.stringify(rest) } : {}),
  });
  const headers = Object.fromEntries([...response.headers].filter(([name]) => name !== 'date'));
  return { status: response.status, headers, body: await response.text() };
}

/** An answer with the id taken out, which is the only thing that may differ. */
function withoutId(answer: unknown, id: string): string {
  return JSON.stringify(answer).replaceAll(id, 'ID');
}

test('every method is looked at here', () => {
  expect([...Object.keys(NAMES_A_JOB), ...NAMES_NONE].sort()).toEqual(Object.keys(PruningServiceDefinition.methods).sort());
  for (const name of NAMES_NONE) {
    const { requestType } = PruningServiceDefinition.methods[name as Method];
    expect([name, 'jobId' in requestType.fromPartial({})]).toEqual([name, name === 'createJob']);
  }
});

describe('a job of another tenant', () => {
  let before: Job[];
  beforeAll(async () => {
    before = await jobsOf(owner);
  });
  afterAll(async () => {
    expect(await jobsOf(owner)).toEqual(before);
  });

  describe.each(Object.entries(NAMES_A_JOB))('%s', (method, rest) => {
    test.each(IDS)('%s is answered as if it was not there', async (jobId) => {
      for (const call of [callByGrpc, callByHttp]) {
        const answer = withoutId(await call(method, { jobId, ...rest }), jobId);
        expect(answer).toContain('There is no job ID.');
        expect(answer).toContain('NOT_FOUND');
        expect(answer).toBe(withoutId(await call(method, { jobId: absent(jobId), ...rest }), absent(jobId)));
      }
    });
  });

  test('is there for its own tenant, by both', async () => {
    expect(await callByHttp('getJob', { jobId: 'secret-done' }, alice)).toMatchObject({ status: 200 });
    expect(await callByHttp('getTrace', { jobId: 'secret-done' }, alice)).toMatchObject({ status: 200 });
    expect((await owner.getReport('secret-done')).report?.$case).toBe('prune');
  });

  test('is in no list, and no page token tells whether it is there', async () => {
    expect(await jobsOf(stranger)).toEqual([]);
    for (const call of [callByGrpc, callByHttp]) {
      for (const id of IDS) {
        const listAfter = async (last: string): Promise<string> =>
          withoutId(await call('listJobs', { jobId: '', pageToken: Buffer.from(`${Date.now()}.${last}`).toString('base64url') }), last);
        const answer = await listAfter(id);
        expect(answer).not.toContain('INVALID_REQUEST');
        expect(answer).toBe(await listAfter(absent(id)));
      }
    }
    // Pages are made of one's own jobs alone, also where others lie between them.
    const waiting = (jobId: string) => ({ jobId, spec: evaluateSpec('books-opt', join(folder.path, 'nothing', jobId)) });
    for (const id of ['own-1', 'own-2']) {
      await stranger.createJob(waiting(id));
      await stranger.waitForJob(id);
      await owner.createJob(waiting(`secret-after-${id}`));
      await owner.waitForJob(`secret-after-${id}`);
    }
    const pages = [];
    const list = channel.client(PruningServiceDefinition);
    let pageToken = '';
    do {
      const page = await list.listJobs({ pageSize: 1, pageToken }, { timeoutMs: TIMEOUT_MS });
      const [, last] = Buffer.from(page.nextPageToken, 'base64url').toString().split('.');
      pages.push([page.jobs.map(({ id }) => id), last]);
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    expect(pages).toEqual([
      [['own-2'], 'own-2'],
      [['own-1'], undefined],
    ]);
    for (const id of ['own-1', 'own-2']) {
      await stranger.deleteJob(id);
      await owner.deleteJob(`secret-after-${id}`);
    }
  });

  test('is neither given nor told of to who creates one of its id, whatever the spec', async () => {
    for (const jobId of IDS) {
      const equal = specs[jobId]!;
      const tried = [equal, { ...equal, priority: 1 }, evaluateSpec('books-opt', '/nowhere'), JobSpec.fromPartial({})];
      for (const given of tried) {
        expect(await callByGrpc('createJob', { jobId, spec: given })).toMatchObject({
          reason: 'ALREADY_EXISTS',
          status: { message: `The id ${jobId} is taken; choose another.` },
        });
        // The id is in the body here.
        const response = await fetch(`http://${cluster.httpAddress}${PruningServiceRoutes.createJob.path}`, {
          method: 'POST',
          headers: { Authorization: `Bearer ${mallory.token}`, 'Content-Type': 'application/json' },
          body: JSON.stringify({ jobId, spec: JobSpec.toJSON(given) }),
        });
        expect({ status: response.status, ...((await response.json()) as object) }).toMatchObject({
          status: 409,
          message: `The id ${jobId} is taken; choose another.`,
        });
      }
    }
    expect(await jobsOf(stranger)).toEqual([]);
  });

  test('is not forgotten for who creates one of its id and spec after its output was removed', async () => {
    const output = join(folder.path, 'research', 'done');
    await rm(output, { recursive: true });
    await expect(stranger.createJob({ jobId: 'secret-done', spec: specs['secret-done']! })).rejects.toMatchObject({
      reason: 'ALREADY_EXISTS',
    });
    expect(await owner.getJob('secret-done')).toMatchObject({ state: JobState.SUCCEEDED });
  });
});

describe('a tenant with roots of its own', () => {
  const inside = (...parts: string[]): string => join(folder.path, 'confined', ...parts);
  let client: PruningClient;
  beforeAll(async () => {
    client = as(carol.token);
    await symlink(join(folder.path, 'research'), inside('link'));
  });

  test.each<[string, () => JobSpec]>([
    ['a model', () => spec(inside('out'), { model: modelPath('books-opt'), calibration: ownData() })],
    ['an output', () => spec(join(folder.path, 'research', 'out'), { model: inside('model'), calibration: ownData() })],
    ['an output behind a link', () => spec(inside('link', 'out'), { model: inside('model'), calibration: ownData() })],
    ['an output by ..', () => spec(`${inside()}/../research/out`, { model: inside('model'), calibration: ownData() })],
    ['calibration data', () => spec(inside('out'), { model: inside('model') })],
    ['a model that is measured', () => evaluateSpec('books-opt', modelPath('books-opt'), { data: ownData() })],
    ['data that is measured with', () => evaluateSpec('books-opt', inside('model'))],
  ])('is refused %s outside of them', async (_what, make) => {
    const refused = { reason: 'PATH_NOT_ALLOWED' };
    await expect(client.createJob({ jobId: 'refused', spec: make() })).rejects.toMatchObject(refused);
    await expect(client.planJob(make())).rejects.toMatchObject(refused);
    await expect(client.getJob('refused')).rejects.toMatchObject({ reason: 'NOT_FOUND' });
  });

  test('may use what lies inside', async () => {
    const own = spec(inside('out'), { model: inside('model'), calibration: ownData() });
    await client.createJob({ jobId: 'confined', spec: own });
    // There is no model, which is told by the job.
    expect(await client.waitForJob('confined')).toMatchObject({ state: JobState.FAILED });
    await client.deleteJob('confined');
  });

  function ownData(): TokenSource {
    return TokenSource.fromPartial({ path: inside('ids.safetensors') });
  }
});

/** PruneJobs of Kubernetes become jobs, and tell what became of them; real orchestrators and nodes against an API server of the tests. */
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { JobState, type Job } from '@secateur/proto/job';
import { KubernetesApi, type StoredObject } from '../../services/orchestrator/test/kubernetes-api.js';
import { Cluster, type Replica } from '../support/cluster.js';
import { eventually } from '../support/jobs.js';
import { fixturePath, modelPath, temporaryFolder } from '../support/paths.js';
import { PostgresServer } from '../support/postgres-server.js';
import { slowDown } from '../support/slow-process.js';

const MODEL = 'books-opt';
const LEASE = 'secateur-controller';

interface Status {
  readonly phase: string;
  readonly jobId?: string;
  readonly progress?: string;
  readonly observedGeneration: number;
  readonly conditions: readonly { type: string; status: string; reason: string; message: string; lastTransitionTime: string }[];
  readonly [field: string]: unknown;
}

/** What is to be ended afterwards, the last one first. */
const started: AsyncDisposable[] = [];
let api: KubernetesApi;
let cluster: Cluster;
let folder: string;

beforeAll(async () => {
  const temporary = await temporaryFolder();
  started.push(temporary);
  folder = temporary.path;
  const database = await PostgresServer.start();
  started.push(database);
  api = await KubernetesApi.start();
  started.push(api);
  const kubeconfig = join(folder, 'kubeconfig');
  await writeFile(kubeconfig, api.kubeconfig);
  cluster = await Cluster.start({
    nodes: 1,
    orchestrators: 2,
    state: database.url,
    serve: ['--lease', '3', '--controller'],
    environment: { KUBECONFIG: kubeconfig },
  });
  started.push(cluster);
});

afterAll(async () => {
  for (const used of started.reverse()) await used[Symbol.asyncDispose]();
});

function spec(name: string, changes: object = {}): object {
  return {
    model: modelPath(MODEL),
    output: join(folder, name),
    sparsity: 0.5,
    allocation: 'uniform',
    calibration: { paths: [fixturePath('calibration', `${MODEL}-calibration.safetensors`)], samples: 8, sequenceLength: 256 },
    ...changes,
  };
}

/** So slow is a node that a job is still running when it is looked at, on a fast machine too. */
const MANY_TIMES = 10;

/** Takes a while: the search of trim over many samples. */
const slowSpec = (name: string): object => ({
  ...spec(name),
  allocation: 'trim',
  calibration: { paths: [fixturePath('calibration', `${MODEL}-calibration.safetensors`)], samples: 128, sequenceLength: 256 },
});

function statusOf(name: string): Status | undefined {
  return api.pruneJob(name)?.status as Status | undefined;
}

function conditionOf(name: string, type: string) {
  return statusOf(name)?.conditions.find((condition) => condition.type === type);
}

async function untilPhase(name: string, phase: string): Promise<Status> {
  await eventually(() => statusOf(name)?.phase === phase, `${name} is ${phase}, not ${JSON.stringify(statusOf(name))}`);
  return statusOf(name)!;
}

const reasonsOf = (name: string): string[] => api.eventsOf(name).map(({ reason }) => reason);

/** Until the events of a PruneJob are those, beside some that do not count. */
async function untilTold(name: string, reasons: readonly string[], besides: readonly string[] = []): Promise<void> {
  const told = (): string =>
    reasonsOf(name)
      .filter((reason) => !besides.includes(reason))
      .join();
  await eventually(() => told() === reasons.join(), `the events of ${name} are ${reasons.join()}`).catch((error: unknown) => {
    throw new Error(`They are ${told()}.`, { cause: error });
  });
}

function jobOf(name: string, { client } = cluster.replicas.at(-1)!): Promise<Job> {
  return client.getJob(statusOf(name)?.jobId ?? '');
}

/** What the audit logs tell of the job of a PruneJob, which is done in its name: method and outcome. */
function auditOf(name: string): string[] {
  return cluster.replicas
    .flatMap(({ process: { output } }) => output.split('\n'))
    .filter((line) => line.includes('"audit":true') && line.includes(`"caller":"prunejob:prune/${name}"`) && line.endsWith('}'))
    .map((line) => JSON.parse(line) as { tenant: string; method: string; outcome: string })
    .map(({ tenant, method, outcome }) => `${tenant} ${method.replace('secateur.v1.PruningService/', '')} ${outcome}`);
}

/** Lines of a log may come late. */
async function untilAudited(name: string, lines: readonly string[]): Promise<void> {
  await eventually(() => auditOf(name).length >= lines.length, `the audit log tells of ${name}`);
  // A refusal comes again whenever the PruneJob is looked at.
  expect([...new Set(auditOf(name))]).toEqual(lines);
}

function leaderName(): string {
  return (api.lease(LEASE)?.spec as { holderIdentity: string } | undefined)?.holderIdentity ?? '';
}

function leads({ process: { pid } }: Replica): boolean {
  return leaderName().includes(`-${pid}-`);
}

test('a PruneJob is run to its end, and its status tells how; the watch may end and be too old meanwhile', async () => {
  api.createPruneJob('whole', spec('whole'));
  await untilPhase('whole', 'Succeeded');
  const { metadata, status } = api.pruneJob('whole') as StoredObject & { status: Status };
  expect(metadata.finalizers).toEqual(['secateur.dev/job']);
  expect(status).toMatchObject({ observedGeneration: 1, layersFinished: 4, layersTotal: 4, progress: '4/4', attempt: 1 });
  expect(status['actualSparsity']).toBeCloseTo(0.5, 2);
  expect(status.conditions.map(({ type, status: holds }) => `${type}=${holds}`)).toEqual([
    'Accepted=True',
    'Running=False',
    'Complete=True',
    'Failed=False',
    'Suspended=False',
  ]);
  expect(await jobOf('whole')).toMatchObject({ tenant: 'prune', state: JobState.SUCCEEDED });
  await stat(join(folder, 'whole', 'secateur.json'));
  await untilTold('whole', ['JobCreated', 'JobStarted', 'JobPlanned', 'JobSucceeded']);
  expect(api.eventsOf('whole').at(-1)).toMatchObject({
    type: 'Normal',
    note: `The pruned checkpoint is ${join(folder, 'whole')}.`,
    regarding: { apiVersion: 'secateur.dev/v1alpha1', kind: 'PruneJob', uid: metadata.uid },
    reportingInstance: leaderName(),
  });

  // What is done stays told when the job is forgotten.
  await cluster.client.deleteJob(status.jobId ?? '');
  const writes = api.writes.length;
  api.endWatches();
  api.patchPruneJob('whole', { metadata: { labels: { seen: 'yes' } } });
  api.createPruneJob('unseen', spec('unseen'));
  api.forget('event');
  await untilPhase('unseen', 'Succeeded');
  expect(statusOf('whole')).toEqual(status);
  expect(api.writes.slice(writes).filter(({ request }) => request.includes('/whole'))).toEqual([]);
});

test('it is set aside and goes on as its spec says', async () => {
  api.createPruneJob('aside', { ...slowSpec('aside'), suspend: true });
  await untilPhase('aside', 'Suspended');
  expect(statusOf('aside')?.jobId).toBeUndefined();
  using slowed = slowDown(cluster.nodes[0]!, MANY_TIMES);
  api.patchPruneJob('aside', { spec: { suspend: false } });
  await untilPhase('aside', 'Running');
  api.patchPruneJob('aside', { spec: { suspend: true } });
  await untilPhase('aside', 'Suspended');
  expect(conditionOf('aside', 'Suspended')).toMatchObject({ status: 'True', reason: 'Suspended' });
  expect(await jobOf('aside')).toMatchObject({ state: JobState.PAUSED });
  slowed[Symbol.dispose]();
  api.patchPruneJob('aside', { spec: { suspend: null } });
  expect((await untilPhase('aside', 'Succeeded')).observedGeneration).toBe(4);
  const ends = ['Suspended', 'Resumed', 'JobStarted', 'JobSucceeded'];
  // Planned the same way again, it counts in the same event.
  await untilTold('aside', ['Suspended', 'JobCreated', 'JobStarted', ...ends], ['JobPlanned']);
  await untilAudited('aside', ['prune CreateJob OK', 'prune PauseJob OK', 'prune ResumeJob OK']);
});

test('its job and its unfinished output go with it', async () => {
  using _slowed = slowDown(cluster.nodes[0]!, MANY_TIMES);
  api.createPruneJob('gone', slowSpec('gone'));
  await untilPhase('gone', 'Running');
  const jobId = statusOf('gone')?.jobId ?? '';
  await eventually(async () => (await jobOf('gone')).layers > 0, 'it is planned');
  api.deletePruneJob('gone');
  expect(api.pruneJob('gone')?.metadata.deletionTimestamp).toBeDefined();
  await eventually(() => api.pruneJob('gone') === undefined, 'the finalizer is removed');
  await expect(cluster.client.getJob(jobId)).rejects.toMatchObject({ reason: 'NOT_FOUND' });
  await expect(stat(join(folder, 'gone.partial'))).rejects.toThrow('ENOENT');
  await untilTold('gone', ['JobCreated', 'JobStarted', 'JobPlanned', 'JobCancelled']);
  await untilAudited('gone', ['prune CreateJob OK', 'prune CancelJob OK', 'prune DeleteJob OK']);
});

test('a spec that is wrong is told of, and tried again when it changes', async () => {
  api.createPruneJob('wrong', spec('wrong', { pattern: '4:2', sketches: 2 }));
  const { conditions } = await untilPhase('wrong', 'Failed');
  expect(conditions[0]).toMatchObject({ type: 'Accepted', status: 'False', reason: 'SpecRefused' });
  expect(conditions[0]?.message).toMatch(/prune\.pattern .*; prune\.sketches /);
  const writes = api.writes.length;
  api.patchPruneJob('wrong', { metadata: { labels: { seen: 'yes' } } });
  api.createPruneJob('outside', spec('outside', { model: '/nowhere/model' }));
  expect((await untilPhase('outside', 'Failed')).conditions[0]?.message).toContain('/nowhere/model');
  await untilTold('outside', ['SpecRefused']);
  await untilAudited('outside', ['prune CreateJob PATH_NOT_ALLOWED']);
  expect(api.eventsOf('outside')[0]).toMatchObject({ type: 'Warning', note: expect.stringContaining('/nowhere/model') });
  expect(api.writes.slice(writes).filter(({ request }) => request.includes('/wrong'))).toEqual([]);
  api.patchPruneJob('wrong', { spec: { pattern: null, sketches: null } });
  await untilPhase('wrong', 'Succeeded');
  await untilTold('wrong', ['SpecRefused', 'JobCreated', 'JobStarted', 'JobPlanned', 'JobSucceeded']);
});

test('jobs are run all the same where events are refused, or not answered', async () => {
  for (const [name, answer] of [
    ['refused', 403],
    ['unanswered', 'nothing'],
  ] as const) {
    api.eventsAnswer = answer;
    api.createPruneJob(name, spec(name));
    await untilPhase(name, 'Succeeded');
    expect(reasonsOf(name)).toEqual([]);
  }
  api.eventsAnswer = undefined;
  // The first is tried again when it was not answered for ten seconds, after those that waited for it.
  const wanted = ['JobCreated', 'JobPlanned', 'JobStarted', 'JobSucceeded'];
  await eventually(() => reasonsOf('unanswered').sort().join() === wanted.join(), 'its events are told');
});

test('another orchestrator goes on when the one that leads is killed', async () => {
  const leader = cluster.replicas.find(leads)!;
  const other = cluster.replicas.find((replica) => replica !== leader)!;
  using slowed = slowDown(cluster.nodes[0]!, MANY_TIMES);
  api.createPruneJob('kept', slowSpec('kept'));
  await untilPhase('kept', 'Running');
  await eventually(() => reasonsOf('kept').includes('JobStarted'), 'it is told that it began');
  const toldBefore = reasonsOf('kept');
  await leader.process.signal('SIGKILL');
  slowed[Symbol.dispose]();
  await eventually(() => leads(other), 'the other one leads');
  await untilPhase('kept', 'Succeeded');
  expect(await jobOf('kept', other)).toMatchObject({ state: JobState.SUCCEEDED });
  expect((api.lease(LEASE)?.spec as { leaseTransitions: number }).leaseTransitions).toBeGreaterThan(0);
  // Nothing is told twice; who runs the job is not always who leads.
  await eventually(() => reasonsOf('kept').at(-1) === 'JobSucceeded', 'its end is told');
  expect(reasonsOf('kept').slice(0, toldBefore.length)).toEqual(toldBefore);
  expect(reasonsOf('kept').slice(toldBefore.length)).not.toContain('JobStarted');
  const repeated = api.eventsOf('kept').filter(({ series, reason }) => series !== undefined && reason !== 'JobPlanned');
  expect(repeated).toEqual([]);
  // One that ends as it should lets go at once.
  await other.process.signal('SIGTERM');
  expect(leaderName()).toBe('');
});

test('events are created and patched, and nothing else is done with them', () => {
  const asked = api.writes.filter(({ request }) => request.includes('/events'));
  expect(asked.length).toBeGreaterThan(10);
  expect(asked.filter(({ request }) => !/^(?:POST|PATCH) /.test(request))).toEqual([]);
  // None is read.
  expect(api.requests.filter(({ pathname }) => pathname.includes('/events'))).toHaveLength(asked.length);
});

test('a status is written at most once a second', () => {
  const times = new Map<string, number[]>();
  for (const { request, code, atMs } of api.writes) {
    if (request.endsWith('/status') && code === 200) times.set(request, [...(times.get(request) ?? []), atMs]);
  }
  expect(times.size).toBeGreaterThan(4);
  for (const written of times.values()) {
    for (const [index, atMs] of written.slice(1).entries()) expect(atMs - written[index]!).toBeGreaterThan(900);
  }
});

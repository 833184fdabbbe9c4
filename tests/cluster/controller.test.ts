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

function jobOf(name: string, { client } = cluster.replicas.at(-1)!): Promise<Job> {
  return client.getJob(statusOf(name)?.jobId ?? '');
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
  api.patchPruneJob('aside', { spec: { suspend: false } });
  await untilPhase('aside', 'Running');
  api.patchPruneJob('aside', { spec: { suspend: true } });
  await untilPhase('aside', 'Suspended');
  expect(conditionOf('aside', 'Suspended')).toMatchObject({ status: 'True', reason: 'Suspended' });
  expect(await jobOf('aside')).toMatchObject({ state: JobState.PAUSED });
  api.patchPruneJob('aside', { spec: { suspend: null } });
  expect((await untilPhase('aside', 'Succeeded')).observedGeneration).toBe(4);
});

test('its job and its unfinished output go with it', async () => {
  api.createPruneJob('gone', slowSpec('gone'));
  await untilPhase('gone', 'Running');
  const jobId = statusOf('gone')?.jobId ?? '';
  await eventually(async () => (await jobOf('gone')).layers > 0, 'it is planned');
  api.deletePruneJob('gone');
  expect(api.pruneJob('gone')?.metadata.deletionTimestamp).toBeDefined();
  await eventually(() => api.pruneJob('gone') === undefined, 'the finalizer is removed');
  await expect(cluster.client.getJob(jobId)).rejects.toMatchObject({ reason: 'NOT_FOUND' });
  await expect(stat(join(folder, 'gone.partial'))).rejects.toThrow('ENOENT');
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
  expect(api.writes.slice(writes).filter(({ request }) => request.includes('/wrong'))).toEqual([]);
  api.patchPruneJob('wrong', { spec: { pattern: null, sketches: null } });
  await untilPhase('wrong', 'Succeeded');
});

test('another orchestrator goes on when the one that leads is killed', async () => {
  const leader = cluster.replicas.find(leads)!;
  const other = cluster.replicas.find((replica) => replica !== leader)!;
  api.createPruneJob('kept', slowSpec('kept'));
  await untilPhase('kept', 'Running');
  await leader.process.signal('SIGKILL');
  await eventually(() => leads(other), 'the other one leads');
  await untilPhase('kept', 'Succeeded');
  expect(await jobOf('kept', other)).toMatchObject({ state: JobState.SUCCEEDED });
  expect((api.lease(LEASE)?.spec as { leaseTransitions: number }).leaseTransitions).toBeGreaterThan(0);
  // One that ends as it should lets go at once.
  await other.process.signal('SIGTERM');
  expect(leaderName()).toBe('');
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

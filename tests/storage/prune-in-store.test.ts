/** Jobs that read from a store and write to it give the bytes of local ones, whatever happens on the way. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { TokenSource } from '@secateur/proto/job';
import { Cluster } from '../support/cluster.js';
import { runCommand } from '../support/command.js';
import { eventually, prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { fixturePath, modelPath, temporaryFolder, withTemporaryFolder, type TemporaryFolder } from '../support/paths.js';
import { StoreServer } from '../support/store-server.js';
import { writeTinyCheckpoint } from '../support/tiny-checkpoint.js';

const MODEL = 'books-llama';
const CALIBRATION = fixturePath('calibration', `${MODEL}-calibration.safetensors`);
const SAMPLES = 16;
/** Its embedding makes a file that is sent in three parts. */
const LARGE_MODEL = {
  model_type: 'llama',
  hidden_size: 512,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  vocab_size: 16_600,
  max_position_embeddings: 256,
  intermediate_size: 256,
  rms_norm_eps: 1e-6,
  rope_theta: 10_000,
  tie_word_embeddings: true,
} as const;

const calibration = TokenSource.fromPartial({ path: CALIBRATION, samples: SAMPLES, sequenceLength: 256 });
/** Where it does not matter what comes out. */
const little = { ...calibration, samples: 2 };

let store: StoreServer;
let folder: TemporaryFolder;
let staging: string;
let model: string;
/** Its node reads from the store itself. */
let cluster: Cluster;
/** What a job gives that knows of no store. */
let reference: Record<string, string>;
beforeAll(async () => {
  [store, folder] = await Promise.all([StoreServer.start(), temporaryFolder()]);
  staging = join(folder.path, 'staging');
  model = await store.putFolder(modelPath(MODEL), 'team/llama');
  await store.put('team/calibration.safetensors', await readFile(CALIBRATION));
  cluster = await startCluster();
  const output = join(folder.path, 'pruned');
  await prune(cluster.client, 'reference', pruneSpec(MODEL, output, { calibration }));
  reference = await hashOutput(output);
});
afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
  await store[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});
afterEach(() => {
  store.intervene = () => undefined;
  store.requests.length = 0;
});

const startCluster = (nodeEnvironment: NodeJS.ProcessEnv = {}): Promise<Cluster> =>
  Cluster.start({
    nodes: 1,
    environment: store.environment,
    nodeEnvironment,
    roots: [store.url('team')],
    serve: ['--staging', staging, '--http-listen', '127.0.0.1:0'],
    node: ['--root', store.url('team')],
  });

/** The files of an output of the store, compared as those of a folder are. */
function hashStored(prefix: string): Promise<Record<string, string>> {
  return withTemporaryFolder(async (path) => {
    for (const name of await store.list(prefix)) await writeFile(join(path, name), await store.get(`${prefix}/${name}`));
    return await hashOutput(path);
  });
}

/** Bytes that the orchestrator has sent to nodes. */
async function sentBytes({ httpAddress }: Cluster): Promise<number> {
  const metrics = await (await fetch(`http://${httpAddress}/metrics`)).text();
  return Number(/^secateur_fetch_sent\S*\s+(\d+)/m.exec(metrics)?.[1]);
}

const pruneInStore = ({ client }: Cluster, id: string, changes: Parameters<typeof pruneSpec>[2] = {}) =>
  prune(client, id, pruneSpec(MODEL, store.url(`team/${id}`), { model, calibration, ...changes }));

test('the command prunes from the store to the store, and leaves nothing behind on this machine', async () => {
  const output = store.url('team/pruned');
  const data = ['--calibration', store.url('team/calibration.safetensors'), '--samples', String(SAMPLES)];
  const args = ['prune', '--model', model, '--out', output, '--sparsity', '0.7', ...data, '--nodes', '1', '--staging', staging];
  const { exitCode, stderr } = await runCommand(args, undefined, store.environment);
  expect([exitCode, stderr]).toEqual([0, expect.not.stringContaining('NodeVersionSupportWarning')]);
  const { 'secateur.json': report, ...files } = await hashStored('team/pruned');
  expect(reference).toMatchObject(files);
  expect(report).toBeDefined();
  expect(await readdir(staging)).toEqual([]);
  // What makes it whole comes last.
  const put = store.requests.filter(({ method }) => method === 'PUT').map(({ path }) => path);
  expect(put.at(-1)).toBe(`${store.bucket}/team/pruned/secateur.json`);

  const inspected = await runCommand(['inspect', output, '--json'], undefined, store.environment);
  expect(JSON.parse(inspected.stdout)).toMatchObject({ directory: output });
  const strange = await runCommand(['inspect', output], undefined, { ...store.environment, AWS_ACCESS_KEY_ID: 'STRANGER' });
  expect([strange.exitCode, strange.stderr]).toEqual([1, expect.stringContaining('the store does not know the access key')]);
  expect(strange.stderr).not.toContain('STRANGER');
});

test('nodes read from the store themselves, or pull when they do not reach it', async () => {
  const sent: number[] = [];
  const pruneCounted = async (on: Cluster, id: string): Promise<void> => {
    const before = await sentBytes(on);
    await pruneInStore(on, id);
    expect(await hashStored(`team/${id}`)).toEqual({ ...reference, 'secateur.json': expect.any(String) });
    sent.push((await sentBytes(on)) - (before || 0));
  };
  await pruneCounted(cluster, 'direct');
  await using apart = await startCluster({ AWS_ENDPOINT_URL_S3: 'http://127.0.0.1:9' });
  await pruneCounted(apart, 'pulled');
  expect(sent[1]).toBeGreaterThan(1e6);
  // Statistics and masks are pulled all the same.
  expect(sent[0]).toBeLessThan(sent[1]! / 4);
});

test('an output is deleted with its job, and taken while it is there', async () => {
  await pruneInStore(cluster, 'deleted', { calibration: little });
  await expect(pruneInStore(cluster, 'other', { output: store.url('team/deleted') })).rejects.toMatchObject({ reason: 'ALREADY_EXISTS' });
  await cluster.client.deleteJob('deleted', { deleteOutput: true });
  expect(await store.list('team/deleted')).toEqual([]);
});

test('a model that is replaced while a job reads it ends the job, which names it', async () => {
  const changing = await store.putFolder(modelPath(MODEL), 'team/changing');
  const weights = await readFile(join(modelPath(MODEL), 'model.safetensors'));
  weights[weights.length - 1]! ^= 1;
  let reads = 0;
  store.intervene = async ({ method, path }) => {
    if (method === 'GET' && path.endsWith('/team/changing/model.safetensors') && ++reads === 2) {
      await store.put('team/changing/model.safetensors', weights);
    }
  };
  await expect(pruneInStore(cluster, 'changed', { model: changing })).rejects.toThrow(
    `${store.url('team/changing/model.safetensors')}: it has changed while it was in use`,
  );
  expect(await store.list('team/changed')).toEqual([]);
});

test('what is missing, forbidden, outside or taken is told by name', async () => {
  await store.putFolder(modelPath(MODEL), 'team/broken');
  await store.remove('team/broken/model.safetensors');
  await expect(pruneInStore(cluster, 'broken-job', { model: store.url('team/broken') })).rejects.toThrow(
    `${store.url('team/broken')} has neither model.safetensors nor`,
  );
  await expect(pruneInStore(cluster, 'no-model', { model: store.url('team/nothing') })).rejects.toThrow(
    `Cannot read ${store.url('team/nothing/config.json')}: it does not exist`,
  );
  for (const outside of ['others/llama', 'team/../others/llama', 'team-2/llama'].map((key) => store.url(key))) {
    await expect(pruneInStore(cluster, 'outside', { model: outside })).rejects.toMatchObject({ reason: 'PATH_NOT_ALLOWED' });
    await expect(pruneInStore(cluster, 'outside', { output: outside })).rejects.toMatchObject({ reason: 'PATH_NOT_ALLOWED' });
  }
  await expect(pruneInStore(cluster, 'taken', { output: model })).rejects.toThrow(/team\/llama holds .*, which is not of this job/);
  store.intervene = ({ method, path }, exchange) => {
    if (method === 'PUT' && path.includes('/team/forbidden/')) exchange.fail(403, 'AccessDenied');
  };
  await expect(pruneInStore(cluster, 'forbidden', { calibration: little })).rejects.toThrow(
    /Cannot write s3:\/\/.*\/team\/forbidden\/.*permission is denied/,
  );
});

test('an orchestrator that is killed while it sends goes on with what is missing', async () => {
  const large = join(folder.path, 'large');
  await writeTinyCheckpoint(large, LARGE_MODEL);
  const local = join(folder.path, 'large-pruned');
  const changes = { model: large, calibration: little };
  await prune(cluster.client, 'local', pruneSpec(MODEL, local, changes));
  const spec = pruneSpec(MODEL, store.url('team/large'), changes);

  let sent = 0;
  let kill: (() => void) | undefined;
  const killed = new Promise<void>((resolve) => (kill = resolve));
  store.intervene = ({ method, partNumber }) => {
    if (method !== 'PUT' || partNumber === undefined) return undefined;
    // Two parts are through; the third never gets its answer.
    if (++sent < 3) return undefined;
    kill?.();
    return new Promise(() => undefined);
  };
  await cluster.client.createJob({ jobId: 'large', spec });
  await killed;
  const partsOf = (): string[] => store.requests.flatMap(({ partNumber }) => (partNumber === undefined ? [] : [partNumber])).sort();
  // The answers to the others are on their way.
  await eventually(async () => (await recordedParts()) === 2, 'two parts are recorded');
  await cluster.orchestrator.signal('SIGKILL');
  expect(partsOf()).toEqual(['1', '2', '3']);
  expect(await store.list('team/large')).not.toContain('secateur.json');

  const before = store.requests.length;
  store.intervene = () => undefined;
  const { client } = await cluster.addReplica();
  await prune(client, 'large', spec);
  expect(await hashStored('team/large')).toEqual({ ...(await hashOutput(local)), 'secateur.json': expect.any(String) });
  const puts = store.requests.slice(before).filter(({ method }) => method === 'PUT');
  expect(puts.map(({ path, partNumber }) => `${path.split('/').at(-1)} ${partNumber ?? ''}`.trim())).toEqual([
    expect.stringMatching(/^model.safetensors \d$/),
    'row_sparsities.safetensors',
    'secateur.json',
  ]);
});

/** Parts that the staging folder remembers. */
async function recordedParts(): Promise<number> {
  const name = (await readdir(staging)).find((folderName) => folderName.startsWith('large-')) ?? '';
  const text = await readFile(join(staging, name, 'uploads.jsonl'), 'utf8').catch(() => '');
  return text.split('\n').filter((line) => line.includes('"part"')).length;
}

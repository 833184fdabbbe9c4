/** A node that answers what cannot be right is left out and named; the others make the same bytes without it. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { PruningClient } from '@secateur/client';
import { Allocation } from '@secateur/proto/allocation';
import type { AllocateRowsResponse, CollectStatisticsResponse, DescribeNodeResponse } from '@secateur/proto/kernel_service';
import { JobState, type JobSpec } from '@secateur/proto/job';
import { AlteringNode, type Alteration } from '../support/altering-node.js';
import { ServiceProcess } from '../support/cluster.js';
import { eventually, prune } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { repositoryRoot, temporaryFolder, type TemporaryFolder } from '../support/paths.js';
import { writeTinyJob } from '../support/tiny-job.js';
import { tmpdir } from 'node:os';

let folder: TemporaryFolder;
let specFor: (output: string) => JobSpec;
let nodes: readonly { readonly process: ServiceProcess; readonly address: string }[];
let wrong: AlteringNode;
let reference: Record<string, string>;

const startNode = (name: string) =>
  ServiceProcess.start(['node', '--listen', '127.0.0.1:0', '--name', name, '--threads', '1', '--memory', '256MiB', '--backend', 'cpu']);

/** Runs work with an orchestrator of those nodes. */
async function withService<Result>(addresses: readonly string[], work: (client: PruningClient) => Promise<Result>): Promise<Result> {
  const roots = [repositoryRoot, tmpdir()].flatMap((root) => ['--root', root]);
  const nodeArgs = addresses.flatMap((address) => ['--node', address]);
  const { process: service, address } = await ServiceProcess.start([
    'serve',
    '--listen',
    '127.0.0.1:0',
    '--state',
    'memory',
    ...nodeArgs,
    ...roots,
  ]);
  const client = PruningClient.connect(address);
  try {
    return await work(client);
  } finally {
    client.close();
    await service.signal('SIGTERM');
  }
}

beforeAll(async () => {
  folder = await temporaryFolder();
  specFor = await writeTinyJob(folder.path, { allocation: Allocation.UNIFORM });
  nodes = await Promise.all([startNode('right'), startNode('wrong')]);
  wrong = await AlteringNode.start(nodes[1]!.address);
  const output = join(folder.path, 'reference');
  await withService([nodes[0]!.address], (client) => prune(client, 'reference', specFor(output)));
  reference = await hashOutput(output);
});
afterAll(async () => {
  await wrong[Symbol.asyncDispose]();
  await Promise.all(nodes.map(({ process: service }) => service.signal('SIGTERM')));
  await folder[Symbol.asyncDispose]();
});

const ofStatistics =
  (change: (answer: CollectStatisticsResponse) => CollectStatisticsResponse | undefined): Alteration =>
  (method, answer) =>
    method === 'collectStatistics' ? change(answer as CollectStatisticsResponse) : answer;
const ofRows =
  (change: (answer: AllocateRowsResponse) => AllocateRowsResponse | undefined): Alteration =>
  (method, answer) =>
    method === 'allocateRows' ? change(answer as AllocateRowsResponse) : answer;

type Field = 'sumsOfSquares' | 'qualityInputs';
const withField = (
  answer: CollectStatisticsResponse,
  field: Field,
  change: (bytes: Uint8Array) => Uint8Array,
): CollectStatisticsResponse => ({
  ...answer,
  statistics: answer.statistics && { ...answer.statistics, [field]: change(Uint8Array.from(answer.statistics[field])) },
});
const notANumber = (bytes: Uint8Array): Uint8Array => bytes.fill(0xff, 0, 8);
const flipped = (bytes: Uint8Array): Uint8Array => Uint8Array.from(bytes, (byte, index) => (index === 5 ? byte ^ 1 : byte));

const ALTERATIONS: readonly (readonly [string, Alteration, RegExp])[] = [
  ['NaN among sums', ofStatistics((answer) => withField(answer, 'sumsOfSquares', notANumber)), /NaN or infinity/],
  ['NaN among quality inputs', ofStatistics((answer) => withField(answer, 'qualityInputs', notANumber)), /NaN or infinity/],
  ['sums of another shape', ofStatistics((answer) => withField(answer, 'sumsOfSquares', (bytes) => bytes.subarray(8))), /bytes of sums/],
  [
    'quality inputs of a sample less',
    ofStatistics((answer) => withField(answer, 'qualityInputs', (bytes) => bytes.subarray(0, bytes.byteLength / 2))),
    /bytes of quality inputs/,
  ],
  ['an input left out', ofStatistics((answer) => (answer.groupDone ? { ...answer, statistics: undefined } : answer)), /0 times/],
  ['a group left out', ofStatistics(() => undefined), /left out/],
  ['a group of another node', ofStatistics((answer) => ({ ...answer, groupIndex: 77 })), /group 77/],
  [
    'a mask with a bit flipped',
    ofRows((answer) => (answer.part?.$case === 'mask' ? { part: { $case: 'mask', value: flipped(answer.part.value) } } : answer)),
    /contradicts itself .*row/,
  ],
  [
    'a mask that is too short',
    ofRows((answer) => (answer.part?.$case === 'mask' ? { part: { $case: 'mask', value: answer.part.value.subarray(1) } } : answer)),
    /bytes of mask instead of/,
  ],
  ['no record', ofRows((answer) => (answer.part?.$case === 'rows' ? undefined : answer)), /no record/],
];

test('a node before a real one that alters nothing works like that', async () => {
  const output = join(folder.path, 'unaltered');
  const report = await withService([wrong.address], (client) => prune(client, 'unaltered', specFor(output)));
  expect(report.nodes.map(({ lost }) => lost)).toEqual(['']);
  expect(await hashOutput(output)).toEqual(reference);
});

test('a node of another version is never used, and told of with both versions', () =>
  withService([nodes[0]!.address, wrong.address], async (client) => {
    wrong.alter = (method, answer) =>
      method === 'describeNode' ? { ...answer, engine: { ...(answer as DescribeNodeResponse).engine, version: '9.8.7' } } : answer;
    try {
      const report = await prune(client, 'versions', specFor(join(folder.path, 'versions')));
      expect(report.nodes.map(({ address }) => address)).toEqual([nodes[0]!.address]);
      const other = (await client.listNodes()).find(({ address }) => address === wrong.address);
      expect(other).toMatchObject({ healthy: false, reason: expect.stringMatching(/version 9\.8\.7.*orchestrator's \d+\.\d+\.\d+/) });
    } finally {
      wrong.alter = (_method, answer) => answer;
    }
  }));

test('nodes that answer what cannot be right are left out, and the others make the same bytes', () =>
  withService([nodes[0]!.address, wrong.address], async (client) => {
    for (const [index, [name, alter, message]] of ALTERATIONS.entries()) {
      wrong.alter = alter;
      // The job before has taken it for lost.
      await eventually(async () => (await client.listNodes()).every(({ healthy }) => healthy), 'both nodes');
      const output = join(folder.path, `pruned-${index}`);
      const { nodes: used } = await prune(client, `wrong-${index}`, specFor(output));
      const { lost } = used.find(({ address }) => address === wrong.address)!;
      expect({ name, lost }).toEqual({ name, lost: expect.stringMatching(message) });
      expect(lost).toContain(`Node wrong (${wrong.address}) answered`);
      expect(used.find(({ address }) => address !== wrong.address)!.lost).toBe('');
      expect(await hashOutput(output)).toEqual(reference);
    }
  }));

test('where no other node is left, the job ends at once with what the node answered', () =>
  withService([wrong.address], async (client) => {
    wrong.alter = ALTERATIONS[0]![1];
    await client.createJob({ jobId: 'alone', spec: specFor(join(folder.path, 'alone')) });
    const { state, error } = await client.waitForJob('alone');
    expect(state).toBe(JobState.FAILED);
    expect(error?.message).toMatch(/^Node wrong \(.*\) answered the statistics of layer 0 with NaN or infinity/);
  }));

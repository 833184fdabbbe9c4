/** A block is written while others of its projections are allocated and while the inputs of the next are computed. What fails meanwhile costs no byte. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Allocation } from '@secateur/proto/allocation';
import { JobState, type JobEvent, type JobSpec } from '@secateur/proto/job';
import { fromStatusProto } from '@secateur/rpc';
import type { PruningClient } from '@secateur/client';
import { AlteringNode, type Alteration } from '../support/altering-node.js';
import { Cluster, ServiceProcess } from '../support/cluster.js';
import { prune } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { temporaryFolder, type TemporaryFolder } from '../support/paths.js';
import { FailingDisk, preloadProblem } from '../support/preload.js';
import { writeTinyJob } from '../support/tiny-job.js';

const describeWithPreload = preloadProblem === undefined ? describe : describe.skip;
const suffix = preloadProblem === undefined ? '' : ` (skipped: ${preloadProblem})`;
const NODE = ['node', '--listen', '127.0.0.1:0', '--name', 'held', '--threads', '1', '--memory', '256MiB', '--backend', 'cpu'];
const PROJECTIONS = 7;

describeWithPreload(`while a block is written${suffix}`, () => {
  let folders: readonly TemporaryFolder[];
  let disk: FailingDisk;
  let output: string;
  let specFor: (output: string) => JobSpec;
  let node: { readonly process: ServiceProcess; readonly address: string };
  let held: AlteringNode;
  let reference: Record<string, string>;
  /** What a whole job does to the disk. */
  let operations: readonly string[];
  let letGo: () => void = () => undefined;

  const startCluster = (state: string): Promise<Cluster> =>
    Cluster.start({ nodes: 0, state, serve: ['--node', held.address, '--lease', '3'], environment: disk.environment });

  beforeAll(async () => {
    folders = [await temporaryFolder(), await temporaryFolder()];
    const [tools, data] = folders.map(({ path }) => path) as [string, string];
    const outputs = join(data, 'outputs');
    await mkdir(outputs);
    output = join(outputs, 'pruned');
    specFor = await writeTinyJob(data, { allocation: Allocation.UNIFORM });
    disk = new FailingDisk(tools, outputs);
    node = await ServiceProcess.start(NODE);
    held = await AlteringNode.start(node.address);
    await using cluster = await startCluster('memory');
    await prune(cluster.client, 'reference', specFor(output));
    operations = disk.operations();
    reference = await hashOutput(output);
  });
  beforeEach(() => rm(output, { recursive: true, force: true }));
  afterAll(async () => {
    letGo();
    await held[Symbol.asyncDispose]();
    await node.process.signal('SIGTERM');
    for (const folder of folders) await folder[Symbol.asyncDispose]();
  });

  /** Answers of the node that `isHeld` picks come when `letGo` is called. */
  const hold = (isHeld: (method: string, answer: object) => boolean): void => {
    const released = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    const alter: Alteration = (method, answer) => (isHeld(method, answer) ? released.then(() => answer) : answer);
    held.alter = alter;
  };

  const progressOf = async (
    client: PruningClient,
    id: string,
    wanted: { layer: number; step: string; done?: number },
  ): Promise<JobEvent> => {
    for await (const event of client.watchJob(id)) {
      if (event.event?.$case !== 'progress') continue;
      const { layer, step, done, total } = event.event.value;
      if (layer === wanted.layer && step === wanted.step && done === (wanted.done ?? total)) return event;
    }
    throw new Error(`Job ${id} ended before.`);
  };

  const firstOperation = (kind: string, file: string): number => {
    const found = operations.findIndex((operation) => operation.startsWith(kind) && operation.endsWith(file));
    expect(found).toBeGreaterThan(0);
    return found;
  };

  let answered = 0;
  test.each([
    ['others of its projections are allocated', 'allocate', PROJECTIONS - 2, isRowsAfter(() => ++answered, PROJECTIONS - 2)],
    ['the next inputs are computed', 'propagate', 0, (method: string) => method === 'propagate'],
  ])('a disk that fails as %s ends the job at once, which goes on when it is mended', async (_, step, done, isHeld) => {
    await using cluster = await startCluster('memory');
    const { client } = cluster;
    const id = `failed-${step}`;
    answered = 0;
    hold(isHeld);
    const header = firstOperation('write', 'masks.safetensors');
    disk.hangFrom(operations.indexOf(operations[header]!, header + 1));
    await client.createJob({ jobId: id, spec: specFor(output) });
    await progressOf(client, id, { layer: 0, step, done });
    disk.failFrom(0, 'ENOSPC');
    const { state, error, finishedLayers } = await client.waitForJob(id);
    disk.mend();
    expect({ state, finishedLayers }).toEqual({ state: JobState.FAILED, finishedLayers: 0 });
    expect(fromStatusProto(error!)).toMatchObject({
      reason: 'RESOURCE_EXHAUSTED',
      message: expect.stringMatching(/pruned\.partial\/.*no space is left on the device \(ENOSPC\)/),
    });
    held.alter = (_method, answer) => answer;
    letGo();
    await client.resumeJob(id);
    expect((await client.waitForJob(id)).state).toBe(JobState.SUCCEEDED);
    expect(await hashOutput(output)).toEqual(reference);
  });

  test('a block that cannot be made durable while the next one is computed ends the job before that one is written', async () => {
    await using cluster = await startCluster('memory');
    const { client } = cluster;
    disk.operations();
    disk.hangFrom(firstOperation('sync', 'masks.safetensors'));
    await client.createJob({ jobId: 'not-durable', spec: specFor(output) });
    await progressOf(client, 'not-durable', { layer: 1, step: 'propagate' });
    const masks = disk.operations().filter((operation) => operation.startsWith('write') && operation.endsWith('masks.safetensors'));
    // The header and one block.
    expect(masks).toHaveLength(1 + PROJECTIONS);
    disk.failFrom(0, 'ENOSPC');
    const { state, error, finishedLayers } = await client.waitForJob('not-durable');
    disk.mend();
    expect({ state, finishedLayers }).toEqual({ state: JobState.FAILED, finishedLayers: 0 });
    expect(fromStatusProto(error!)).toMatchObject({ reason: 'RESOURCE_EXHAUSTED', message: expect.stringContaining('Cannot sync') });
    await client.resumeJob('not-durable');
    expect((await client.waitForJob('not-durable')).state).toBe(JobState.SUCCEEDED);
    expect(await hashOutput(output)).toEqual(reference);
  });

  test.each([
    ['the next inputs are computed', 0],
    ['the next block is computed', 1],
  ])('an orchestrator that is killed when %s and nothing is durable costs work, and no byte', async (_, layer) => {
    await using state = await temporaryFolder();
    await using cluster = await startCluster(state.path);
    disk.hangFrom(firstOperation('sync', 'masks.safetensors'));
    const id = `killed-${layer}`;
    await cluster.client.createJob({ jobId: id, spec: specFor(output) });
    await progressOf(cluster.client, id, { layer, step: 'propagate' });
    expect((await cluster.client.getJob(id)).finishedLayers).toBe(0);
    await cluster.orchestrator.signal('SIGKILL');
    disk.mend();
    const { client } = await cluster.addReplica();
    expect(await client.waitForJob(id)).toMatchObject({ state: JobState.SUCCEEDED, attempt: 2 });
    expect(await hashOutput(output)).toEqual(reference);
  });
});

/** Whether an answer begins the rows of a projection after the first few. */
function isRowsAfter(countRows: () => number, few: number): (method: string, answer: object) => boolean {
  return (method, answer) =>
    method === 'allocateRows' && (answer as { part?: { $case: string } }).part?.$case === 'rows' && countRows() > few;
}

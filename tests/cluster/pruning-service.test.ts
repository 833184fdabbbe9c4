/** The jobs API of a running orchestrator, as other services call it. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { PruningClient } from '@secateur/client';
import { JobState, TokenSource, type JobEvent } from '@secateur/proto/job';
import { Cluster } from '../support/cluster.js';
import { eventually, prune, pruneSpec } from '../support/jobs.js';
import { modelPath, withTemporaryFolder } from '../support/paths.js';
import { UnreliableLink } from '../support/unreliable-link.js';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({ nodes: 1 });
});
afterAll(() => cluster[Symbol.asyncDispose]());

test('creating a job twice gives one job, and another spec under its id is refused', () =>
  withTemporaryFolder(async (folder) => {
    const spec = pruneSpec('books-opt', join(folder, 'pruned'));
    const report = await prune(cluster.client, 'twice', spec);
    const again = await cluster.client.createJob({ jobId: 'twice', spec });
    expect(again.state).toBe(JobState.SUCCEEDED);
    expect(report.projections).toHaveLength(24);
    const other = pruneSpec('books-opt', join(folder, 'pruned'), { sparsity: 0.6 });
    await expect(cluster.client.createJob({ jobId: 'twice', spec: other })).rejects.toMatchObject({ reason: 'ALREADY_EXISTS' });
  }));

test('a wrong spec is refused with all its violations before there is a job', async () => {
  const spec = pruneSpec('books-opt', '/tmp/nowhere', { sparsity: 1.5, calibration: TokenSource.fromPartial({ sequenceLength: 1 }) });
  const error = await cluster.client.createJob({ jobId: 'wrong', spec }).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ reason: 'INVALID_REQUEST' });
  const fields = (error as { violations: { field: string }[] }).violations.map(({ field }) => field);
  expect(fields).toEqual(['prune.sparsity', 'prune.calibration.path', 'prune.calibration.sequence_length']);
  await expect(cluster.client.getJob('wrong')).rejects.toMatchObject({ reason: 'NOT_FOUND' });
});

test('an output folder that exists is refused before there is a job', async () => {
  const spec = pruneSpec('books-opt', modelPath('books-opt'));
  await expect(cluster.client.createJob({ spec })).rejects.toMatchObject({ reason: 'ALREADY_EXISTS' });
});

test('events have numbers without gaps and can be watched from any of them', () =>
  withTemporaryFolder(async (folder) => {
    const sequences: number[] = [];
    await prune(cluster.client, 'watched', pruneSpec('books-opt', join(folder, 'pruned')), ({ sequence }) => sequences.push(sequence));
    expect(sequences).toEqual(sequences.map((_, index) => index + 1));
    const later: number[] = [];
    for await (const { sequence } of cluster.client.watchJob('watched', { afterSequence: 10 })) later.push(sequence);
    expect(later).toEqual(sequences.slice(10));
  }));

test('a watch ends when its job is deleted, and does not go on with another job that has got the id', () =>
  withTemporaryFolder(async (folder) => {
    // Without a node that answers, jobs stay where they are.
    await using kept = await Cluster.start({ nodes: 0, unreachable: 1, state: join(folder, 'state') });
    const { client } = kept;
    const spec = pruneSpec('books-opt', join(folder, 'pruned'), { sparsity: 0.5 });
    await client.createJob({ jobId: 'again', spec });
    await client.pauseJob('again');
    const events = client.watchJob('again');
    let last = (await events.next()).value;
    while (last?.event?.$case !== 'stateChanged' || last.event.value.state !== JobState.PAUSED) last = (await events.next()).value;
    const rest = (async () => {
      const states: (JobState | undefined)[] = [];
      for await (const { event } of events) states.push(event?.$case === 'stateChanged' ? event.value.state : undefined);
      return states;
    })().catch((error: unknown) => error);
    await client.cancelJob('again');
    await client.deleteJob('again');
    await client.createJob({ jobId: 'again', spec: pruneSpec('books-opt', join(folder, 'pruned'), { sparsity: 0.6 }) });
    for (let time = 0; time < 5; ++time) {
      await client.pauseJob('again');
      await client.resumeJob('again');
    }
    // It may have been told of the end before the job was deleted.
    const learnt = await rest;
    if (Array.isArray(learnt)) expect(learnt).toEqual([JobState.CANCELLED]);
    else expect(learnt).toMatchObject({ reason: 'NOT_FOUND' });
  }));

test('a watch that was interrupted goes on with its job alone, and who waits or reads does not take another one for it', () =>
  withTemporaryFolder(async (folder) => {
    await using kept = await Cluster.start({ nodes: 0, unreachable: 1, state: join(folder, 'state') });
    const { client: near } = kept;
    await using link = await UnreliableLink.open();
    link.target = kept.address;
    const far = PruningClient.connect(link.address);
    using _closing = { [Symbol.dispose]: () => far.close() };
    const spec = pruneSpec('books-opt', join(folder, 'pruned'), { sparsity: 0.5 });
    const { createdAt: jobCreatedAt } = await near.createJob({ jobId: 'taken', spec });
    await near.pauseJob('taken');
    const watches = await Promise.all(
      Array.from({ length: 2 }, async () => {
        const events = far.watchJob('taken');
        expect((await events.next()).value).toMatchObject({ sequence: 1 });
        return events;
      }),
    );
    const waiting = far.waitForJob('taken', { jobCreatedAt }).catch((error: unknown) => error);

    link.cut();
    expect((await Promise.all(watches.map((events) => untilPaused(events)))).every((paused) => paused)).toBe(true);
    // What is sent from now on does not arrive, until the connection is gone.
    link.silence('back');
    await near.cancelJob('taken');
    await near.deleteJob('taken');
    const other = await near.createJob({ jobId: 'taken', spec: pruneSpec('books-opt', join(folder, 'pruned'), { sparsity: 0.6 }) });
    for (let time = 0; time < 5; ++time) {
      await near.pauseJob('taken');
      await near.resumeJob('taken');
    }
    link.cut();
    link.heal();
    const gone = { reason: 'NOT_FOUND', message: expect.stringContaining('The job taken that is meant was deleted') };
    for (const events of watches) await expect(events.next()).rejects.toMatchObject(gone);
    expect(await waiting).toMatchObject(gone);
    await expect(far.getJob('taken', { jobCreatedAt })).rejects.toMatchObject(gone);
    await expect(far.getReport('taken', { jobCreatedAt })).rejects.toMatchObject(gone);
    expect(await far.getJob('taken', { jobCreatedAt: other.createdAt })).toMatchObject({ createdAt: other.createdAt });
    expect((await far.watchJob('taken', { jobCreatedAt: other.createdAt }).next()).value).toMatchObject({ sequence: 1 });
  }));

test('jobs wait for their turn, and one that waits or runs can be cancelled at once', () =>
  withTemporaryFolder(async (folder) => {
    const { client } = cluster;
    await client.createJob({ jobId: 'running', spec: pruneSpec('books-qwen2', join(folder, 'a')) });
    await client.createJob({ jobId: 'waiting', spec: pruneSpec('books-qwen2', join(folder, 'b')) });
    await eventually(async () => (await client.getJob('running')).state === JobState.RUNNING, 'the first job runs');
    expect((await client.getJob('waiting')).state).toBe(JobState.QUEUED);
    const sameOutput = pruneSpec('books-opt', join(folder, 'a'));
    await expect(client.createJob({ spec: sameOutput })).rejects.toMatchObject({ reason: 'ALREADY_EXISTS' });
    expect((await client.cancelJob('waiting')).state).toBe(JobState.CANCELLED);
    expect((await client.getJob('running')).state).toBe(JobState.RUNNING);
    const started = performance.now();
    expect((await client.cancelJob('running')).state).toBe(JobState.CANCELLED);
    expect(performance.now() - started).toBeLessThan(2_000);
    await expect(client.getReport('running')).rejects.toMatchObject({ reason: 'FAILED_PRECONDITION' });
    // Its session is closed on the node.
    await eventually(async () => (await client.listNodes())[0]?.description?.sessions === 0, 'the node has no session');
    expect((await client.listNodes())[0]?.description?.memoryUsedBytes).toBe(0);
  }));

test('a job that has ended goes on only where its tenant may have one more, by every way there is', () =>
  withTemporaryFolder(async (folder) => {
    const tenants = join(folder, 'tenants.json');
    await writeFile(tenants, JSON.stringify({ default: { unendedJobs: 1 } }));
    // Without a node that answers, jobs stay where they are.
    await using limited = await Cluster.start({ nodes: 0, unreachable: 1, serve: ['--tenants', tenants] });
    const { client } = limited;
    const [ended, other] = [pruneSpec('books-opt', join(folder, 'ended')), pruneSpec('books-opt', join(folder, 'other'))];
    await client.createJob({ jobId: 'ended', spec: ended });
    await client.cancelJob('ended');
    await client.createJob({ jobId: 'other', spec: other });
    for (const goOn of [() => client.resumeJob('ended'), () => client.createJob({ jobId: 'ended', spec: ended })]) {
      await expect(goOn()).rejects.toMatchObject({ reason: 'RESOURCE_EXHAUSTED' });
    }
    expect((await client.getJob('ended')).state).toBe(JobState.CANCELLED);
    await client.cancelJob('other');
    await client.resumeJob('ended');
    await expect(client.createJob({ jobId: 'other', spec: other })).rejects.toMatchObject({ reason: 'RESOURCE_EXHAUSTED' });
    // One that is paused counts already.
    await client.pauseJob('ended');
    await client.resumeJob('ended');
  }));

test('jobs are listed newest first, all of them over pages', async () => {
  const ids: string[] = [];
  for await (const { id } of cluster.client.listJobs()) ids.push(id);
  expect(ids).toEqual(['waiting', 'running', 'watched', 'twice']);
  const ended: string[] = [];
  for await (const { id } of cluster.client.listJobs({ states: [JobState.CANCELLED], limit: 1 })) ended.push(id);
  expect(ended).toEqual(['waiting']);
});

test('what is not there is NOT_FOUND', async () => {
  for (const call of [
    () => cluster.client.getJob('none'),
    () => cluster.client.cancelJob('none'),
    () => cluster.client.getReport('none'),
  ]) {
    await expect(call()).rejects.toMatchObject({ reason: 'NOT_FOUND' });
  }
});

test('nodes are described with their engine', async () => {
  const [node] = await cluster.client.listNodes();
  expect(node).toMatchObject({ healthy: true, description: { name: 'node-0', engine: { backend: 'cpu', threads: 1 } } });
});

test('a configured node that is not there does not keep a job waiting', () =>
  withTemporaryFolder(async (folder) => {
    await using partial = await Cluster.start({ nodes: 1, unreachable: 1 });
    const started = performance.now();
    const report = await prune(partial.client, 'job', pruneSpec('books-opt', join(folder, 'pruned')));
    expect(performance.now() - started).toBeLessThan(10_000);
    expect(report.nodes.map(({ name }) => name)).toEqual(['node-0']);
    expect((await partial.client.listNodes()).map(({ healthy }) => healthy)).toEqual([true, false]);
  }));

async function untilPaused(events: AsyncIterator<JobEvent>): Promise<boolean> {
  for (let next = await events.next(); next.done !== true; next = await events.next()) {
    if (next.value.event?.$case === 'stateChanged' && next.value.event.value.state === JobState.PAUSED) return true;
  }
  return false;
}

/** Nodes that have too little memory for their part of a job: the others do without them, and a job that none has room for fails with an error that says so. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { PruningClient } from '@secateur/client';
import { Allocation } from '@secateur/proto/allocation';
import { fromStatusProto } from '@secateur/rpc';
import { JobState, TokenSource, type JobSpec } from '@secateur/proto/job';
import { ServiceProcess } from '../support/cluster.js';
import { eventually, prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { fixturePath, repositoryRoot, withTemporaryFolder } from '../support/paths.js';

const startNode = (name: string, memory: string) =>
  ServiceProcess.start(['node', '--listen', '127.0.0.1:0', '--name', name, '--threads', '1', '--memory', memory, '--backend', 'cpu']);

const calibration = TokenSource.fromPartial({ path: fixturePath('calibration', 'books-opt-calibration.safetensors'), samples: 16 });
const specFor = (output: string): JobSpec => pruneSpec('books-opt', output, { allocation: Allocation.UNIFORM, calibration });

test('a node without room is left out and named; the job is done by the other, if that has room for all of it', () =>
  withTemporaryFolder(async (folder) => {
    const [large, small] = await Promise.all([startNode('large', '256MiB'), startNode('small', '4MiB')]);
    const { process: service, address } = await ServiceProcess.start([
      ...['serve', '--listen', '127.0.0.1:0', '--state', 'memory', '--node', large.address, '--node', small.address],
      ...['--root', repositoryRoot, '--root', tmpdir()],
    ]);
    const client = PruningClient.connect(address);
    try {
      const output = join(folder, 'pruned');
      const lost: string[] = [];
      const report = await prune(client, 'job', specFor(output), ({ event }) => {
        if (event?.$case === 'nodeLost') lost.push(`${event.value.name}: ${event.value.reason}`);
      });
      expect(lost).toEqual([expect.stringMatching(/^small: small \(.*\): The job needs \d+ bytes/)]);
      expect(report.nodes.map(({ name, lost: reason }) => [name, reason !== ''])).toEqual([
        ['small', true],
        ['large', false],
      ]);

      await small.process.signal('SIGKILL');
      await prune(client, 'reference', specFor(join(folder, 'reference')));
      expect(await hashOutput(output)).toEqual(await hashOutput(join(folder, 'reference')));
    } finally {
      client.close();
      for (const started of [service, large.process, small.process]) await started.signal('SIGTERM');
    }
  }));

test('a job that no node has room for fails with what it needs, and is resumed where there is room', () =>
  withTemporaryFolder(async (folder) => {
    const nodes = await Promise.all([startNode('one', '4MiB'), startNode('other', '4MiB')]);
    const { process: service, address } = await ServiceProcess.start([
      ...['serve', '--listen', '127.0.0.1:0', '--state', 'memory', ...nodes.flatMap((node) => ['--node', node.address])],
      ...['--root', repositoryRoot, '--root', tmpdir()],
    ]);
    const client = PruningClient.connect(address);
    let roomy: ServiceProcess | undefined;
    try {
      await client.createJob({ jobId: 'job', spec: specFor(join(folder, 'pruned')) });
      const { state, error } = await client.waitForJob('job');
      expect(state).toBe(JobState.FAILED);
      const { reason, message, metadata } = fromStatusProto(error!);
      expect(reason).toBe('RESOURCE_EXHAUSTED');
      expect(message).toMatch(/^(one|other) \(127\.0\.0\.1:\d+\)/);
      expect(Number(metadata['neededBytes'])).toBeGreaterThan(Number(metadata['availableBytes']));

      await nodes[0].process.signal('SIGKILL');
      const listen = ['--listen', nodes[0].address, '--name', 'roomy', '--memory', '512MiB'];
      ({ process: roomy } = await ServiceProcess.start(['node', ...listen, '--threads', '1', '--backend', 'cpu']));
      await eventually(
        async () => (await client.listNodes()).some((node) => node.healthy && node.description?.name === 'roomy'),
        'the node with room',
      );
      await client.resumeJob('job');
      expect(await client.waitForJob('job')).toMatchObject({ state: JobState.SUCCEEDED });
    } finally {
      client.close();
      for (const started of [service, ...nodes.map((node) => node.process), roomy]) await started?.signal('SIGTERM');
    }
  }));

/** One of two nodes has too little memory for its part of a job: an error that names it, and a job that goes on without it. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { PruningClient } from '@secateur/client';
import { Allocation } from '@secateur/proto/allocation';
import { fromStatusProto } from '@secateur/rpc';
import { JobState, TokenSource, type JobSpec } from '@secateur/proto/job';
import { ServiceProcess } from '../support/cluster.js';
import { prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { fixturePath, repositoryRoot, withTemporaryFolder } from '../support/paths.js';

const startNode = (name: string, memory: string) =>
  ServiceProcess.start(['node', '--listen', '127.0.0.1:0', '--name', name, '--threads', '1', '--memory', memory, '--backend', 'cpu']);

test('a node without room is named; the job is done by the other once it is gone', () =>
  withTemporaryFolder(async (folder) => {
    const calibration = TokenSource.fromPartial({ path: fixturePath('calibration', 'books-opt-calibration.safetensors'), samples: 16 });
    const specFor = (output: string): JobSpec => pruneSpec('books-opt', output, { allocation: Allocation.UNIFORM, calibration });
    const [large, small] = await Promise.all([startNode('large', '256MiB'), startNode('small', '4MiB')]);
    const { process: service, address } = await ServiceProcess.start([
      ...['serve', '--listen', '127.0.0.1:0', '--state', 'memory', '--node', large.address, '--node', small.address],
      ...['--root', repositoryRoot, '--root', tmpdir()],
    ]);
    const client = PruningClient.connect(address);
    try {
      const output = join(folder, 'pruned');
      await client.createJob({ jobId: 'job', spec: specFor(output) });
      const { state, error } = await client.waitForJob('job');
      expect(state).toBe(JobState.FAILED);
      const { reason, message, metadata } = fromStatusProto(error!);
      expect(reason).toBe('RESOURCE_EXHAUSTED');
      expect(message).toContain(`small (${small.address})`);
      expect(Number(metadata['neededBytes'])).toBeGreaterThan(Number(metadata['availableBytes']));

      await small.process.signal('SIGKILL');
      await client.resumeJob('job');
      expect(await client.waitForJob('job')).toMatchObject({ state: JobState.SUCCEEDED });
      await prune(client, 'reference', specFor(join(folder, 'reference')));
      expect(await hashOutput(output)).toEqual(await hashOutput(join(folder, 'reference')));
    } finally {
      client.close();
      for (const started of [service, large.process, small.process]) await started.signal('SIGTERM');
    }
  }));

/** A checkpoint that is changed while it is pruned: the bytes it would have had, or an error that names the file, and the same bytes once it is put back. */
import { tmpdir } from 'node:os';
import { appendFile, copyFile, cp, open, rename, rm, truncate, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { openCheckpoint } from '@secateur/checkpoint';
import { Allocation } from '@secateur/proto/allocation';
import { JobState, PruneSpec, type Job, type JobSpec } from '@secateur/proto/job';
import { Cluster } from '../support/cluster.js';
import { prune } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { temporaryFolder, withTemporaryFolder, type TemporaryFolder } from '../support/paths.js';
import { writeTinyJob } from '../support/tiny-job.js';

const WEIGHTS = 'model.safetensors';
/** The first is done when the checkpoint is changed; the last has not been read but for its digests. */
const BLOCKS = 5;

type Change = (model: string) => Promise<void>;

/** Nodes that read the file themselves find something else in it, and then pull what the orchestrator has. */
const NODES: Readonly<Record<string, readonly string[]>> = { 'pull the weights': [], 'read the weights themselves': ['--root', tmpdir()] };

let source: TemporaryFolder;
let specFor: (output: string) => JobSpec;
let reference: Record<string, string>;
beforeAll(async () => {
  await using cluster = await Cluster.start({ nodes: 1 });
  source = await temporaryFolder();
  specFor = await writeTinyJob(source.path, { allocation: Allocation.UNIFORM }, BLOCKS);
  const output = join(source.path, 'reference');
  await prune(cluster.client, 'reference', specFor(output));
  reference = await hashOutput(output);
});
afterAll(() => source[Symbol.asyncDispose]());

const flipBitOf =
  (tensor: string): Change =>
  async (model) => {
    await using checkpoint = await openCheckpoint(model);
    const { fileOffset } = checkpoint.tensor(tensor);
    const file = await open(join(model, WEIGHTS), 'r+');
    const byte = new Uint8Array(1);
    await file.read(byte, 0, 1, fileOffset);
    await file.write(
      byte.map((value) => value ^ 1),
      0,
      1,
      fileOffset,
    );
    await file.close();
  };

async function replace(model: string, change: Change): Promise<void> {
  const other = join(model, '..', 'other');
  await cp(model, other, { recursive: true });
  await change(other);
  await rename(join(other, WEIGHTS), join(model, WEIGHTS));
}

describe.each(Object.entries(NODES))('with nodes that %s,', (_, node) => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await Cluster.start({ nodes: 1, node });
  });
  afterAll(() => cluster[Symbol.asyncDispose]());

  let jobs = 0;
  /** Runs a job on a copy of the model that is changed when the first block is done and no node computes. */
  async function withChanged(change: Change, use: (job: Job, model: string, output: string) => Promise<void>): Promise<void> {
    await withTemporaryFolder(async (folder) => {
      const model = join(folder, 'model');
      await cp(join(source.path, 'model'), model, { recursive: true });
      const output = join(folder, 'pruned');
      const spec = specFor(output);
      if (spec.kind?.$case !== 'prune') throw new Error('not a prune spec');
      const jobId = `changed-${++jobs}`;
      await cluster.client.createJob({
        jobId,
        spec: { ...spec, kind: { $case: 'prune', value: PruneSpec.fromPartial({ ...spec.kind.value, model }) } },
      });
      for await (const { event } of cluster.client.watchJob(jobId)) if (event?.$case === 'layerFinished') break;
      const { pid } = cluster.nodes[0]!;
      process.kill(pid, 'SIGSTOP');
      try {
        await change(model);
      } finally {
        process.kill(pid, 'SIGCONT');
      }
      await use(await cluster.client.waitForJob(jobId), model, output);
    });
  }

  describe('the same bytes where the weights are', () => {
    const changes: Readonly<Record<string, Change>> = {
      'touched and appended to': async (model) => {
        await utimes(join(model, WEIGHTS), new Date(), new Date());
        await appendFile(join(model, WEIGHTS), 'more');
      },
      // The job has the file open.
      'replaced by others': (model) => replace(model, flipBitOf('model.layers.4.mlp.up_proj.weight')),
      removed: (model) => rm(join(model, WEIGHTS)),
    };
    test.each(Object.entries(changes))('%s', (_, change) =>
      withChanged(change, async ({ state }, _model, output) => {
        expect(state).toBe(JobState.SUCCEEDED);
        expect(await hashOutput(output)).toEqual(reference);
      }),
    );
  });

  describe('an error that names the file where', () => {
    const changes: Readonly<Record<string, readonly [Change, RegExp]>> = {
      'the weights are truncated': [
        (model) => truncate(join(model, WEIGHTS), 150_000),
        /model\.safetensors: it ended at byte \d+, it was cut while in use/,
      ],
      'a block that is still to be read is overwritten': [
        flipBitOf('model.layers.4.mlp.up_proj.weight'),
        /model\.safetensors was changed while it was used/,
      ],
      'a tensor that is only copied is overwritten': [
        flipBitOf('model.norm.weight'),
        /model\.safetensors, tensor "model\.norm\.weight", was changed while it was used/,
      ],
      'the config is overwritten': [(model) => writeFile(join(model, 'config.json'), '{}'), /config\.json was changed while it was used/],
    };
    test.each(Object.entries(changes))('%s; the job goes on once it is put back', (_, [change, message]) =>
      withChanged(change, async ({ id, state, error }, model, output) => {
        expect(state).toBe(JobState.FAILED);
        expect(error?.message).toMatch(message);
        for (const name of [WEIGHTS, 'config.json']) await copyFile(join(source.path, 'model', name), join(model, name));
        await cluster.client.resumeJob(id);
        const resumed = await cluster.client.waitForJob(id);
        expect(resumed.error).toBeUndefined();
        expect(await hashOutput(output)).toEqual(reference);
      }),
    );

    test('a job is resumed with weights that are still changed', () =>
      withChanged(flipBitOf('model.layers.4.mlp.up_proj.weight'), async ({ id }) => {
        await cluster.client.resumeJob(id);
        const { state, error } = await cluster.client.waitForJob(id);
        expect(state).toBe(JobState.FAILED);
        expect(error?.message).toMatch(/pruned\.partial holds an unfinished job with another model, data or options; remove it/);
      }));
  });
});

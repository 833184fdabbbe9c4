/** A cancelled job stops computing in the middle of a step, however long the step: nodes use no more of the processor, and close its session. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Allocation, Repair, RepairTargets, Score } from '@secateur/proto/allocation';
import { JobState, LayerBudget, Propagation, QualityInputs, TokenSource } from '@secateur/proto/job';
import { Cluster } from '../support/cluster.js';
import { eventually, pruneSpec } from '../support/jobs.js';
import { temporaryFolder, type TemporaryFolder } from '../support/paths.js';
import { EVERYTHING } from '../support/scope.js';
import { writeTinyCheckpoint, writeTinyTokens } from '../support/tiny-checkpoint.js';

const VOCABULARY = 512;
const SAMPLES = 8;
const TOKENS = 512;
/** A step of a block takes seconds on one core. */
const CONFIG = {
  model_type: 'llama',
  hidden_size: 1024,
  intermediate_size: 2816,
  num_attention_heads: 16,
  num_key_value_heads: 4,
  num_hidden_layers: 2,
  vocab_size: VOCABULARY,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: true,
} as const;
/** Of the processor, from when it is asked for; that is the same on a busy machine. */
const COMPUTES_AT_MOST_S = 1;
/** By the clock, on a machine that others use too. */
const CLOSED_WITHIN_MS = 2_000;
/** Long enough for a call that was not interrupted to show. */
const WATCHED_MS = 2_000;
/** Of Linux, which counts processor time in these. */
const TICKS_PER_SECOND = 100;

type Changes = NonNullable<Parameters<typeof pruneSpec>[2]>;
const repairedBy = (method: Repair): Changes => ({
  allocation: Allocation.UNIFORM,
  propagation: Propagation.STAGED,
  repair: { method, damping: 0.01, iterations: 20, targets: RepairTargets.OWN },
});
const UNIFORM = { allocation: Allocation.UNIFORM };
type Case = readonly [what: string, step: string, changes: Changes];
const CASES: readonly Case[] = [
  ['collecting', 'collect', UNIFORM],
  ['splitting sparsity between rows', 'allocate', {}],
  ['fitting weights by ADMM', 'allocate', repairedBy(Repair.ADMM)],
  ['propagating', 'propagate', UNIFORM],
];
const MORE_CASES: readonly Case[] = [
  ['finding eigenvalues', 'budget', { layerBudget: LayerBudget.ALPHA }],
  ['finding what each projection costs', 'budget', { layerBudget: LayerBudget.OPTIMAL }],
  ['collecting Gram matrices', 'collect', repairedBy(Repair.FIT)],
  ['splitting it for the least error', 'allocate', { allocation: Allocation.OPTIMAL, qualityInputs: QualityInputs.ALL, sketches: 8 }],
  ['pruning by SparseGPT', 'allocate', { ...UNIFORM, score: Score.SPARSEGPT }],
  ['fitting weights', 'allocate', repairedBy(Repair.FIT)],
  ['swapping weights', 'allocate', { ...UNIFORM, swap: { most: 0 } }],
];

(process.platform === 'linux' ? describe : describe.skip)('a job that is cancelled', () => {
  let data: TemporaryFolder;
  let cluster: Cluster;
  beforeAll(async () => {
    data = await temporaryFolder();
    await writeTinyCheckpoint(join(data.path, 'model'), CONFIG);
    await writeTinyTokens(join(data.path, 'tokens.safetensors'), SAMPLES, TOKENS, VOCABULARY);
    cluster = await Cluster.start({ nodes: 1, threads: 1, node: ['--root', data.path] });
  });
  afterAll(async () => {
    await cluster[Symbol.asyncDispose]();
    await data[Symbol.asyncDispose]();
  });

  test.each(EVERYTHING ? [...CASES, ...MORE_CASES] : CASES)('stops %s', async (what, step, changes) => {
    const { client } = cluster;
    const jobId = what.toLowerCase().replaceAll(' ', '-');
    const calibration = TokenSource.fromPartial({ path: join(data.path, 'tokens.safetensors'), samples: SAMPLES, sequenceLength: TOKENS });
    const model = join(data.path, 'model');
    const spec = pruneSpec('books-llama', join(data.path, jobId), { model, calibration, sparsity: 0.6, ...changes });
    await client.createJob({ jobId, spec });
    for await (const { event } of client.watchJob(jobId)) if (event?.$case === 'progress' && event.value.step === step) break;
    // Until it is in the middle of it.
    const computed = await processorSeconds();
    await eventually(async () => (await processorSeconds()) > computed + 0.3, 'the step goes on');

    const before = await processorSeconds();
    const asked = performance.now();
    expect((await client.cancelJob(jobId)).state).toBe(JobState.CANCELLED);
    const answered = performance.now() - asked;
    await eventually(async () => (await client.listNodes())[0]?.description?.sessions === 0, 'the node has no session');
    const closed = performance.now() - asked;
    await sleep(Math.max(0, WATCHED_MS - closed));
    const computes = (await processorSeconds()) - before;
    process.stderr.write(
      `${what}: answered in ${answered.toFixed()} ms, session closed after ${closed.toFixed()} ms, computed for ${computes.toFixed(2)} s\n`,
    );
    expect(computes).toBeLessThan(COMPUTES_AT_MOST_S);
    expect(closed).toBeLessThan(CLOSED_WITHIN_MS);
  });

  /** That the node has used since it started. */
  async function processorSeconds(): Promise<number> {
    const fields = (await readFile(`/proc/${cluster.nodes[0]!.pid}/stat`, 'utf8')).split(') ')[1]!.split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  }
});

/** Tasks and perplexities as jobs measure them on several nodes, against what single sequences say, and prune jobs that measure. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { loadTokenizer } from '@secateur/checkpoint';
import { EvaluateSpec, Task, TaskSource, TokenSource, type JobSpec } from '@secateur/proto/job';
import { Cluster } from '../support/cluster.js';
import { runCommand } from '../support/command.js';
import { evaluate, eventually, NO_WISHES, prune, pruneSpec } from '../support/jobs.js';
import { fixturePath, modelPath, withTemporaryFolder } from '../support/paths.js';

const MODEL = 'books-opt';
/** Float32 logits of a sequence in a group of others have the same bits; sums over other ranges have not. */
const TOLERANCE = 1e-6;

let cluster: Cluster;
let jobs = 0;
beforeAll(async () => {
  cluster = await Cluster.start({ nodes: 2 });
});
afterAll(() => cluster[Symbol.asyncDispose]());

function evaluateJob(change: Partial<EvaluateSpec>, maximumNodes = 0): JobSpec {
  const value = EvaluateSpec.fromPartial({ model: modelPath(MODEL), ...change });
  return { kind: { $case: 'evaluate', value }, recordTrace: false, maximumNodes, ...NO_WISHES };
}

const measure = (change: Partial<EvaluateSpec>, maximumNodes?: number) =>
  evaluate(cluster.client, `evaluation-${jobs++}`, evaluateJob(change, maximumNodes));

/** Six questions with answers of several lengths. */
const QUESTIONS = [
  { goal: 'catch a whale', choices: ['throw the harpoon', 'sing'] },
  { goal: 'cross the sea', choices: ['in a ship', 'on foot, by the light of the moon, without a word'] },
  { goal: 'see far', choices: ['climb the mast', 'close both of your eyes'] },
  { goal: 'stay dry', choices: ['go below when it rains', 'swim'] },
  { goal: 'find the way', choices: ['follow the stars', 'follow a cloud'] },
  { goal: 'call the men', choices: ['ring the bell', 'be very quiet'] },
];

/** Writes token ids of equal length as the rows of a file. */
async function writeIds(path: string, rows: readonly (readonly number[])[]): Promise<void> {
  const shape = [rows.length, rows[0]?.length ?? 0];
  const header = Buffer.from(JSON.stringify({ input_ids: { dtype: 'I32', shape, data_offsets: [0, 4 * rows.flat().length] } }));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.byteLength));
  await writeFile(path, Buffer.concat([length, header, Buffer.from(Int32Array.from(rows.flat()).buffer)]));
}

/** Log-likelihood of all tokens but the first of each sequence, measured as windows: those of one length by one job. */
async function logLikelihoods(folder: string, sequences: readonly (readonly number[])[]): Promise<number[]> {
  const result = new Array<number>(sequences.length);
  for (const length of new Set(sequences.map((ids) => ids.length))) {
    const places = sequences.flatMap((ids, place) => (ids.length === length ? [place] : []));
    const path = join(folder, `${length}.safetensors`);
    await writeIds(
      path,
      places.map((place) => sequences[place]!),
    );
    const { losses } = await measure({ data: TokenSource.fromPartial({ path }) });
    for (const [row, place] of places.entries()) result[place] = -losses[row]! * (length - 1);
  }
  return result;
}

describe('tasks', () => {
  test('are answered as the likelihoods of single sequences say, on any number of nodes', () =>
    withTemporaryFolder(async (folder) => {
      const tokenizer = await loadTokenizer(modelPath(MODEL));
      const encode = (text: string): number[] => [...tokenizer.encode(text, { addSpecialTokens: false })];
      const contexts = QUESTIONS.map(({ goal }) => `Question: ${goal}\nAnswer:`);
      const before = await logLikelihoods(folder, contexts.map(encode));
      const whole = QUESTIONS.flatMap(({ choices }, index) => choices.map((choice) => encode(`${contexts[index]!} ${choice}`)));
      const together = await logLikelihoods(folder, whole);
      const ofChoices = QUESTIONS.map((_, index) => [0, 1].map((choice) => together[2 * index + choice]! - before[index]!));
      const best = (values: readonly number[]): number => values.indexOf(Math.max(...values));
      const likely = ofChoices.map(best);
      const likelyPerByte = ofChoices.map((values, index) =>
        best(values.map((value, choice) => value / QUESTIONS[index]!.choices[choice]!.length)),
      );
      let files = 0;
      // Otherwise the two accuracies could be mixed up unnoticed.
      expect(likely).not.toEqual(likelyPerByte);
      const ask = async (labels: readonly number[], maximumNodes: number) => {
        const path = join(folder, `questions-${files++}.jsonl`);
        await writeFile(path, QUESTIONS.map((question, index) => `${JSON.stringify({ ...question, label: labels[index] })}\n`).join(''));
        const { tasks } = await measure({ tasks: [{ task: Task.PIQA, path, limit: 0 }] }, maximumNodes);
        return tasks[0]!;
      };
      const right = await ask(likely, 2);
      expect(right).toMatchObject({ questions: 6, accuracy: { value: 1, standardError: 0 } });
      expect(await ask(likely, 1)).toEqual(right);
      const share = likely.filter((choice, index) => choice === likelyPerByte[index]).length / 6;
      expect(right.normalizedAccuracy?.value).toBeCloseTo(share, 12);
      expect(right.normalizedAccuracy?.standardError).toBeCloseTo(Math.sqrt((share * (1 - share)) / 5), 12);
      expect(await ask(likelyPerByte, 2)).toMatchObject({ accuracy: { value: share }, normalizedAccuracy: { value: 1 } });
    }));

  test('of several kinds and a perplexity are measured in one job, as by themselves', () =>
    withTemporaryFolder(async (folder) => {
      const [boolq, winogrande] = [join(folder, 'boolq.jsonl'), join(folder, 'winogrande.jsonl')];
      const passages = ['The whale sank the ship.', 'The men rowed to the island and slept there until the sun rose.'];
      await writeFile(
        boolq,
        passages.map((passage, label) => `${JSON.stringify({ passage, question: 'did it end well', label })}\n`).join(''),
      );
      const sentence = 'Ahab shouted at Starbuck because _ would not turn the ship.';
      await writeFile(winogrande, `${JSON.stringify({ sentence, option1: 'Ahab', option2: 'Starbuck', answer: '2' })}\n`);
      const data = TokenSource.fromPartial({ path: fixturePath('calibration', `${MODEL}-eval.safetensors`), samples: 11 });
      const tasks = [
        { task: Task.BOOLQ, path: boolq, limit: 1 },
        { task: Task.WINOGRANDE, path: winogrande, limit: 0 },
      ];
      const together = await measure({ data, tasks });
      const windows = await measure({ data });
      expect([together.losses, together.windows]).toEqual([windows.losses, 11]);
      expect(together.perplexity).toBe(windows.perplexity);
      expect(together.tasks.map(({ task, questions }) => [task, questions])).toEqual([
        [Task.BOOLQ, 1],
        [Task.WINOGRANDE, 1],
      ]);
      for (const [index, task] of tasks.entries()) expect((await measure({ tasks: [task] })).tasks).toEqual([together.tasks[index]]);
      expect(together.tasks.every(({ normalizedAccuracy }) => normalizedAccuracy === undefined)).toBe(true);
    }));

  test('whose files are wrong fail by file and line', () =>
    withTemporaryFolder(async (folder) => {
      const path = join(folder, 'rte.jsonl');
      await writeFile(path, '{"premise": "It rains."}\n');
      await expect(measure({ tasks: [TaskSource.fromPartial({ task: Task.RTE, path })] })).rejects.toThrow(
        /rte.jsonl, line 1: the field "hypothesis"/,
      );
    }));
});

test('a stride scores each token of the text once, with the window before as its context', () =>
  withTemporaryFolder(async (folder) => {
    const text = join(folder, 'text.txt');
    await writeFile(text, 'The boats pulled away into the fog, and nobody spoke. '.repeat(12));
    const ids = [...(await loadTokenizer(modelPath(MODEL))).encode(await readFile(text, 'utf8'))].slice(0, 48);
    const data = TokenSource.fromPartial({ path: text, sequenceLength: 32, samples: 3 });
    const strided = await measure({ data, stride: 8 });
    expect(strided).toMatchObject({ windows: 3, sequenceLength: 32, stride: 8 });
    // The loss of the last 8 tokens of a window is the difference of two whole windows.
    const [first, ...later] = (
      await logLikelihoods(
        folder,
        [
          [0, 32],
          [8, 40],
          [16, 48],
          [8, 32],
          [16, 40],
        ].map(([start, end]) => ids.slice(start, end)),
      )
    ).map((value) => -value);
    const sums = [first!, later[0]! - later[2]!, later[1]! - later[3]!];
    for (const [window, tokens] of [31, 8, 8].entries()) {
      expect(Math.abs(strided.losses[window]! * tokens - sums[window]!)).toBeLessThan(TOLERANCE * sums[0]!);
    }
    const expected = Math.exp(sums.reduce((sum, loss) => sum + loss, 0) / (31 + 8 + 8));
    expect(Math.abs(strided.perplexity / expected - 1)).toBeLessThan(TOLERANCE);
  }));

describe('a prune job that measures', () => {
  const evaluation = TokenSource.fromPartial({ path: fixturePath('calibration', `${MODEL}-eval.safetensors`), samples: 9 });
  const calibration = TokenSource.fromPartial({ path: fixturePath('calibration', `${MODEL}-calibration.safetensors`), samples: 16 });

  test('reports what evaluate jobs find before and after, and the same bytes', () =>
    withTemporaryFolder(async (folder) => {
      const output = join(folder, 'pruned');
      const spec = pruneSpec(MODEL, output, { calibration, evaluation });
      const report = await prune(cluster.client, 'measured', spec);
      const dense = await measure({ data: evaluation });
      const pruned = await measure({ model: output, data: evaluation });
      expect(report.perplexity).toEqual({ dense: dense.perplexity, pruned: pruned.perplexity });
      const written = JSON.parse(await readFile(join(output, 'secateur.json'), 'utf8')) as { perplexity: unknown; nodes: unknown[] };
      expect(written.perplexity).toEqual(report.perplexity);
      expect(written.nodes).toHaveLength(2);
      const plain = join(folder, 'plain');
      expect((await prune(cluster.client, 'unmeasured', pruneSpec(MODEL, plain, { calibration }))).perplexity).toBeUndefined();
      expect(await readFile(join(output, 'model.safetensors'))).toEqual(await readFile(join(plain, 'model.safetensors')));

      const { exitCode, stdout } = await runCommand(['compare', output, join(plain, 'secateur.json'), '--json']);
      expect(exitCode).toBe(0);
      expect(JSON.parse(stdout)).toMatchObject({
        perplexity: { a: report.perplexity, b: null },
        options: [{ name: 'evaluation', a: evaluation.path, b: null }],
      });
      const table = await runCommand(['compare', output, plain]);
      expect(table.stdout).toContain(dense.perplexity.toFixed(4));
      expect((await runCommand(['compare', output, folder])).stderr).toContain('secateur.json');
    }));

  test('is planned with what measuring takes', async () => {
    const [plain, measured] = await Promise.all([{}, { evaluation }].map((change) => cluster.client.planJob(pruneSpec(MODEL, '', change))));
    expect(measured!.shards.map(({ id }) => id)).toEqual([...plain!.shards.map(({ id }) => id), 'head']);
    const { evaluate: measuring, ...pruning } = measured!.flops;
    expect(pruning).toEqual(plain!.flops);
    // Every block and the head, before and after; the first token of a window is not measured.
    const { vocabularySize, hiddenSize } = measured!.architecture!;
    expect(measuring).toBe(2 * 9 * (256 * 2 * measured!.weights + 255 * 2 * vocabularySize * hiddenSize));
  });

  test('keeps what it measured before when it goes on, also with other data', () =>
    withTemporaryFolder(async (folder) => {
      const output = join(folder, 'pruned');
      const journal = join(`${output}.partial`, 'journal.jsonl');
      const { client } = cluster;
      await client.createJob({ jobId: 'stopped', spec: pruneSpec(MODEL, output, { calibration, evaluation }) });
      const lines = async (): Promise<string[]> => (await readFile(journal, 'utf8').catch(() => '')).split('\n').slice(0, -1);
      await eventually(async () => (await lines()).length >= 3, 'a layer is finished');
      await client.cancelJob('stopped');
      const content = await lines();
      // The job was stopped, not finished: its journal is still there.
      expect(content.length).toBeGreaterThanOrEqual(3);
      const [identity, dense, ...layers] = content;
      const { digest } = (JSON.parse(dense!) as { dense: { digest: string } }).dense;
      await writeFile(journal, [identity, JSON.stringify({ dense: { digest, perplexity: 7 } }), ...layers, ''].join('\n'));
      const resumed = await prune(client, 'resumed', pruneSpec(MODEL, output, { calibration, evaluation }));
      expect(resumed.resumedLayers).toBeGreaterThan(0);
      expect(resumed.perplexity?.dense).toBe(7);
      expect(resumed.perplexity?.pruned).toBeGreaterThan(10);
    }));
});

test('the command measures several tasks, each with its file', () =>
  withTemporaryFolder(async (folder) => {
    const [piqa, rte] = [join(folder, 'piqa.jsonl'), join(folder, 'rte.jsonl')];
    await writeFile(piqa, QUESTIONS.map((question) => `${JSON.stringify({ ...question, label: 0 })}\n`).join(''));
    await writeFile(rte, `${JSON.stringify({ premise: 'It rains.', hypothesis: 'It is wet.', label: 0 })}\n`);
    const base = ['eval', '--model', modelPath(MODEL), '--endpoint', cluster.address, '--quiet'];
    const { exitCode, stdout } = await runCommand([...base, '--task', 'piqa,rte', '--data', piqa, '--data', rte, '--limit', '1', '--json']);
    expect(exitCode).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      tasks: [
        { task: 'piqa', n: 1 },
        { task: 'rte', n: 1, accNorm: null },
      ],
    });
    expect((await runCommand([...base, '--task', 'piqa', '--data', piqa])).stdout).toMatch(/piqa .* 6 .* ± /);
    const wrong = await runCommand([...base, '--task', 'piqa,rte', '--data', piqa]);
    expect([wrong.exitCode, wrong.stderr]).toEqual([2, expect.stringMatching(/--data 1 for 2 tasks/)]);
    expect((await runCommand([...base, '--task', 'squad', '--data', piqa])).exitCode).toBe(2);
  }));

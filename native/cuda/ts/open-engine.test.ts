import { spawnSync } from 'node:child_process';
import { setMaxListeners } from 'node:events';
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type {
  AllocationOptions,
  Engine,
  EngineDescription,
  EngineError,
  EngineSession,
  InputSite,
  Precision,
  ReducedStatistics,
} from './engine.js';
import { openEngine } from './open-engine.js';
import { loadSampleModel, readTensors, SAMPLE_BLOCKS, SAMPLE_MODELS, toFloats, toInts } from './testing/sample-models.js';

const GIBIBYTE = 2 ** 30;
const F32: Precision = { compute: 'f32', hiddenStates: 'f32' };
const WINDOW = 256;
const SITES: readonly InputSite[] = ['attention-input', 'attention-output', 'feed-forward-input', 'feed-forward-hidden'];
const MODEL = SAMPLE_MODELS[1]!;
const TRIM: AllocationOptions = {
  score: 'wanda',
  allocation: 'trim',
  iterations: 10,
  learningRates: [0.01, 0.02, 0.04, 0.08, 0.12, 0.16],
  negativeLearningRates: [-0.01, -0.02, -0.04],
  layerQuality: 'cosim-flat',
  rowQuality: 'cosim',
  pattern: null,
  rowSparsities: null,
};

const bytesOf = (values: Float32Array): Uint8Array => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

function openWith(threads: number, memoryBudgetBytes = 4 * GIBIBYTE): Engine {
  return openEngine({ backend: 'cpu', threads, memoryBudgetBytes });
}

describe.each(SAMPLE_MODELS)('$name', (model) => {
  let engine: Engine;
  let session: EngineSession;
  beforeEach(async () => {
    engine = openWith(2);
    session = engine.openSession(model.architecture, F32);
    await loadSampleModel(session, model);
  });
  afterEach(() => engine.close());

  test('has the published logits and dense perplexity within 1e-4', async () => {
    const ids = toInts((await readTensors(`tests/fixtures/calibration/${model.name}-eval.safetensors`)).get('input_ids')!);
    const losses: number[] = [];
    for (let index = 0; index * 8 * WINDOW < ids.length; index++) {
      const tokenIds = ids.subarray(index * 8 * WINDOW, (index + 1) * 8 * WINDOW);
      await session.embed('embedding', { index, samples: tokenIds.length / WINDOW, sequenceLength: WINDOW, tokenIds });
      for (const shard of SAMPLE_BLOCKS) await session.propagate(shard, index);
      losses.push(...(await session.measureLoss('head', index)).value);
      if (index > 0) await session.releaseGroup(index);
    }
    const published = JSON.parse(readFileSync(`tests/fixtures/end_to_end/${model.name}/dense.json`, 'utf8')) as {
      ppl: number;
      windows: number;
    };
    expect(losses).toHaveLength(published.windows);
    const perplexity = Math.exp(losses.reduce((sum, loss) => sum + loss, 0) / losses.length);
    expect(Math.abs(perplexity / published.ppl - 1)).toBeLessThan(1e-4);

    const [expected] = [...(await readTensors(`tests/fixtures/end_to_end/${model.name}/dense.safetensors`)).values()].map(toFloats);
    const logits = (await session.lastLogits('head', 0)).value;
    expect(logits).toHaveLength(expected!.length);
    const largest = Math.max(...expected!.map(Math.abs));
    const worst = Math.max(...logits.map((logit, index) => Math.abs(logit - expected![index]!)));
    expect(worst / largest).toBeLessThan(1e-4);
  });
});

describe('a session', () => {
  const tokenIds = Int32Array.from({ length: 8 * WINDOW }, (_, index) => (index * 31) % 4096);
  const group = { index: 0, samples: 8, sequenceLength: WINDOW, tokenIds };

  test('gives the same bits on one and two threads', async () => {
    const results = [];
    for (const threads of [1, 2]) {
      const engine = openWith(threads);
      const session = engine.openSession(MODEL.architecture, F32);
      await loadSampleModel(session, MODEL);
      await session.embed('embedding', group);
      const statistics = (await session.collectStatistics('block/0', 0, SITES)).value;
      await session.propagate('block/0', 0);
      results.push({ statistics, losses: (await session.measureLoss('head', 0)).value });
      await engine.close();
    }
    expect(results[1]).toEqual(results[0]);
  });

  test('goes on with hidden states of another session', async () => {
    const engine = openWith(1);
    const open = async () => {
      const session = engine.openSession(MODEL.architecture, F32);
      await loadSampleModel(session, MODEL);
      return session;
    };
    const [first, second] = [await open(), await open()];
    await first.embed('embedding', group);
    await first.propagate('block/0', 0);
    const { value: saved, timings } = await first.saveHiddenStates(0);
    expect(saved.byteLength).toBe(4 * tokenIds.length * MODEL.architecture.hiddenSize);
    expect(timings.map(({ phase }) => phase)).toEqual(['copy']);
    await second.restoreHiddenStates(group, saved);
    await first.releaseGroup(0);
    expect((await second.saveHiddenStates(0)).value).toEqual(saved);
    await expect(first.saveHiddenStates(0)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    await expect(first.restoreHiddenStates(group, saved.subarray(4))).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await engine.close();
  });

  test('reports its phases with times, operations and bytes', async () => {
    const engine = openWith(1);
    const session = engine.openSession(MODEL.architecture, F32);
    await loadSampleModel(session, MODEL);
    await session.embed('embedding', group);
    const { timings, queuedNanoseconds } = await session.collectStatistics('block/0', 0, SITES);
    expect(queuedNanoseconds).toBeGreaterThanOrEqual(0);
    expect(timings.map(({ phase }) => phase)).toEqual(
      expect.arrayContaining(['gemm', 'attention', 'normalization', 'activation', 'statistics']),
    );
    const gemm = timings.find(({ phase }) => phase === 'gemm');
    const { hiddenSize, intermediateSize } = MODEL.architecture;
    // Collecting needs no down projection.
    expect(gemm?.flops).toBe(2 * 8 * WINDOW * hiddenSize * (4 * hiddenSize + intermediateSize));
    expect(gemm?.durationNanoseconds).toBeGreaterThan(0);
    await engine.close();
  });

  test.each([
    ['attention-input', 0, 0],
    ['attention-output', 3, 0],
    ['feed-forward-input', 4, 0],
    ['feed-forward-hidden', 4, 1],
  ] as const)('collects %s alone with no more products than it takes', async (site, squares, raises) => {
    const engine = openWith(1);
    const session = engine.openSession(MODEL.architecture, F32);
    await loadSampleModel(session, MODEL);
    await session.embed('embedding', group);
    const { value, timings } = await session.collectStatistics('block/0', 0, [site]);
    expect(value.map((statistics) => statistics.site)).toEqual([site]);
    const { hiddenSize, intermediateSize } = MODEL.architecture;
    const flops = 2 * 8 * WINDOW * hiddenSize * (squares * hiddenSize + raises * intermediateSize);
    expect(timings.find(({ phase }) => phase === 'gemm')?.flops ?? 0).toBe(flops);
    expect(timings.some(({ phase }) => phase === 'attention')).toBe(squares > 0);
    await expect(session.collectStatistics('block/0', 0, [])).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await engine.close();
  });

  test('stops a call when its signal aborts', async () => {
    const engine = openWith(1);
    const session = engine.openSession(MODEL.architecture, F32);
    await loadSampleModel(session, MODEL);
    await session.embed('embedding', group);
    const abort = new AbortController();
    setMaxListeners(0, abort.signal);
    const calls = Array.from({ length: 200 }, () => session.collectStatistics('block/0', 0, SITES, { signal: abort.signal }));
    abort.abort();
    const started = performance.now();
    const outcomes = await Promise.allSettled(calls);
    expect(performance.now() - started).toBeLessThan(1000);
    for (const outcome of outcomes)
      expect(outcome).toMatchObject({ status: 'rejected', reason: { name: 'EngineError', code: 'CANCELLED' } });
    await expect(session.collectStatistics('block/0', 0, SITES, { signal: abort.signal })).rejects.toMatchObject({ code: 'CANCELLED' });
    await engine.close();
  });

  test('says how much memory is missing, and gives all of it back when it is closed', async () => {
    const engine = openWith(1, 3_000_000);
    const session = engine.openSession(MODEL.architecture, F32);
    const loading = loadSampleModel(session, MODEL);
    const error = await loading.catch((reason: unknown) => reason as EngineError);
    expect(error).toMatchObject({ name: 'EngineError', code: 'RESOURCE_EXHAUSTED' });
    expect(error?.neededBytes).toBeGreaterThan(error?.availableBytes ?? Number.NaN);
    expect(engine.memoryUsedBytes()).toBeGreaterThan(0);
    await session.close();
    expect(engine.memoryUsedBytes()).toBe(0);
    await engine.close();
  });

  test('gives its memory back when its engine is closed', async () => {
    const megabytes = 64;
    const rows = (megabytes * 2 ** 20) / 2 / MODEL.architecture.hiddenSize;
    const vocabularySize = Math.floor(rows);
    const shape = [vocabularySize, MODEL.architecture.hiddenSize];
    const bytes = new Uint8Array(2 * shape[0]! * shape[1]!).fill(1);
    const architecture = { ...MODEL.architecture, positionEncoding: 'rotary', rotaryBase: 10_000, vocabularySize } as const;
    const kept: EngineSession[] = [];
    const before = process.memoryUsage.rss();
    for (let round = 0; round < 6; round++) {
      const engine = openWith(1);
      const session = engine.openSession(architecture, F32);
      kept.push(session);
      await session.loadShard('embedding', [{ role: 'token-embedding', elementType: 'BF16', shape, bytes }]);
      await engine.close();
    }
    expect(process.memoryUsage.rss() - before).toBeLessThan(2 * megabytes * 2 ** 20);
    await expect(kept[0]!.releaseShard('embedding')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  });

  test('refuses calls after it or its engine is closed', async () => {
    const engine = openWith(1);
    const session = engine.openSession(MODEL.architecture, F32);
    await session.close();
    await expect(session.propagate('block/0', 0)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    const other = engine.openSession(MODEL.architecture, F32);
    await engine.close();
    await expect(other.propagate('block/0', 0)).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(() => engine.openSession(MODEL.architecture, F32)).toThrow(/closed/);
  });

  test.each([
    ['a role that is none', { role: 'nothing', elementType: 'F32', shape: [1], bytes: new Uint8Array(4) }, /nothing/],
    ['a type that is none', { role: 'head-weight', elementType: 'I8', shape: [1], bytes: new Uint8Array(4) }, /elementType/],
    ['a shape that is none', { role: 'head-weight', elementType: 'F32', shape: [-1], bytes: new Uint8Array(4) }, /shape/],
    ['bytes that are none', { role: 'head-weight', elementType: 'F32', shape: [1], bytes: 'x' }, /bytes/],
  ])('refuses %s', async (_what, tensor, message) => {
    const engine = openWith(1);
    const session = engine.openSession(MODEL.architecture, F32);
    await expect(session.loadShard('x', [tensor as never])).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringMatching(message),
    });
    await engine.close();
  });
});

test('an architecture that would overflow is refused before any work', async () => {
  const engine = openWith(1);
  const learnedPositionOffset = 2 ** 40 - 5;
  expect(() => engine.openSession({ ...MODEL.architecture, hiddenSize: 2 ** 24, maximumPositions: 6, learnedPositionOffset }, F32)).toThrow(
    expect.objectContaining({ name: 'EngineError', code: 'INVALID_ARGUMENT', message: expect.stringMatching(/learnedPositionOffset/) }),
  );
  await engine.close();
});

interface RecordedCase {
  readonly file: string;
  readonly rows: number;
  readonly columns: number;
  readonly samples: number;
  readonly options: { readonly target: number };
  readonly expected: { readonly learning_rate: number | null; readonly best_metric: number };
}

/** A recorded search with its tensors, and the statistics made of them. */
async function readCase(name: string) {
  const { cases } = JSON.parse(readFileSync('tests/fixtures/trim_search/cases.json', 'utf8')) as { cases: RecordedCase[] };
  const found = cases.find(({ file }) => file === `${name}.safetensors`);
  if (found === undefined) throw new Error(`There is no case ${name}.`);
  const { columns, samples } = found;
  const tensors = await readTensors(`tests/fixtures/trim_search/${name}.safetensors`);
  // X is stored [columns, samples].
  const inputs = toFloats(tensors.get('X')!);
  const qualityInputs = Float32Array.from(
    { length: samples * columns },
    (_, index) => inputs[(index % columns) * samples + Math.floor(index / columns)]!,
  );
  const statistics: ReducedStatistics = {
    samples,
    columns,
    meanSquares: bytesOf(toFloats(tensors.get('scaler')!)),
    qualityInputs: bytesOf(qualityInputs),
  };
  return { ...found, tensors, weights: toFloats(tensors.get('W')!), statistics };
}

describe('allocateMatrix', () => {
  test.each(['books-llama-2.self_attn.o_proj-70', 'books-opt-3.fc1-80', 'books-qwen2-0.mlp.down_proj-70'])(
    'takes the published decision on %s',
    async (name) => {
      const { weights, rows, columns, options, expected, statistics, tensors } = await readCase(name);
      const engine = openWith(2);
      const { value } = await engine.allocateMatrix(weights, rows, columns, options.target, statistics, TRIM);
      expect(value.learningRate).toBe(expected.learning_rate);
      expect(value.bestQuality).toBeCloseTo(expected.best_metric, 6);
      expect(Buffer.from(value.mask)).toEqual(tensors.get('expected.mask')!.bytes);
      expect(value.droppedPerRow).toEqual(toInts(tensors.get('expected.dropped_per_row')!));
      await engine.close();
    },
  );
});

describe('the optimal split', () => {
  test('drops what uniform rows drop, with a better output, and the same on any number of threads', async () => {
    const { weights, rows, columns, statistics } = await readCase('books-qwen2-0.mlp.down_proj-70');
    const allocate = async (allocation: AllocationOptions['allocation'], threads: number) => {
      const engine = openWith(threads);
      const { value } = await engine.allocateMatrix(weights, rows, columns, 0.7, statistics, { ...TRIM, allocation });
      await engine.close();
      return value;
    };
    const [uniform, searched, optimal] = [await allocate('uniform', 1), await allocate('trim', 1), await allocate('optimal', 1)];
    expect(optimal.dropped).toBe(uniform.dropped);
    expect(optimal.bestQuality).toBeGreaterThan(searched.bestQuality);
    expect(optimal).toMatchObject({ learningRate: null, bestStep: null });
    expect((await allocate('optimal', 3)).mask).toEqual(optimal.mask);
  });
});

describe('a process', () => {
  const run = (script: string) =>
    spawnSync(process.execPath, ['--input-type=module', '-e', `import { openEngine } from './native/cuda/dist/index.js';\n${script}`], {
      env: { ...process.env, NODE_OPTIONS: '--expose-gc' },
      timeout: 60_000,
      encoding: 'utf8',
    });
  const open = "const engine = openEngine({ backend: 'auto', threads: 2, memoryBudgetBytes: 2 ** 30 });";
  const busy = `${open}
    const n = 512, weights = new Float32Array(n * n).map((_, i) => Math.sin(i)), inputs = new Uint8Array(new Float32Array(64 * n).map((_, i) => Math.cos(i)).buffer);
    const statistics = { samples: 64, columns: n, meanSquares: new Uint8Array(new Float32Array(n).fill(1).buffer), qualityInputs: inputs };
    const options = { score: 'wanda', allocation: 'trim', iterations: 10, learningRates: [0.01, 0.02], negativeLearningRates: [], layerQuality: 'cosim-flat', rowQuality: 'cosim', pattern: null, rowSparsities: null };
    const call = () => engine.allocateMatrix(weights, n, n, 0.7, statistics, options);`;

  test('with an idle engine ends by itself', () => {
    expect(run(open)).toMatchObject({ status: 0, stderr: '' });
  });

  test('waits for a call that runs', () => {
    expect(run(`${busy} call().then(({ value }) => console.log(value.dropped > 0));`)).toMatchObject({ status: 0, stdout: 'true\n' });
  });

  test('may exit while calls run', () => {
    expect(run(`${busy} for (let i = 0; i < 20; i++) call().catch(() => {}); setTimeout(() => process.exit(7), 5);`)).toMatchObject({
      status: 7,
      signal: null,
    });
  });

  test('keeps inputs alive until their call is over', () => {
    const script = `${busy}
      const results = [];
      for (let i = 0; i < 5; i++) { results.push(engine.allocateMatrix(weights.slice(), n, n, 0.7, statistics, options)); globalThis.gc(); }
      const masks = new Set((await Promise.all(results)).map(({ value }) => Buffer.from(value.mask).toString('base64')));
      globalThis.gc();
      console.log(masks.size);`;
    expect(run(script)).toMatchObject({ status: 0, stdout: '1\n' });
  });
});

describe('the choice of a backend', () => {
  const describeEngine = async (backend: 'auto' | 'cpu' | 'cuda'): Promise<EngineDescription> => {
    const engine = openEngine({ backend, threads: 1, memoryBudgetBytes: 2 ** 30 });
    await engine.close();
    return engine.description;
  };

  test('says why it is the CPU', async () => {
    expect(await describeEngine('cpu')).toMatchObject({ backend: 'cpu', reason: 'asked for' });
  });

  // With a GPU, without a driver, or without a toolkit when the engine was built: each has its own reason.
  test('tells what it knows of a GPU', async () => {
    const { backend, reason } = await describeEngine('auto');
    expect(backend === 'cuda' ? reason : `cpu, ${reason}`).toMatch(
      /^\d+ device.*compute capability|^cpu, no CUDA: (no NVIDIA driver|the NVIDIA driver sees no device|this build has no CUDA library)/,
    );
    if (backend === 'cpu') await expect(describeEngine('cuda')).rejects.toThrow(reason.slice('no CUDA: '.length));
  });
});

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { ProjectionReport } from '@secateur/proto/job';
import { Journal, type FinishedLayer } from './journal.js';

const layer = (index: number): FinishedLayer => ({
  layer: index,
  seconds: 1.5,
  digests: { [`layers.${index}.q.weight`]: '0123456789abcdef' },
  projections: [
    ProjectionReport.fromPartial({
      name: `layers.${index}.q`,
      rows: 4,
      columns: 8,
      target: 0.7,
      actual: 0.6875,
      record: { baselineQuality: 0.9, bestQuality: 0.91, learningRate: -0.02, bestStep: 0, dropped: 22 },
    }),
  ],
});

const DENSE = { digest: '0123456789abcdef', perplexity: 12.5 };
const NEW = { jobId: 'job', identity: 'identity', dense: undefined, targets: undefined, layers: [], snapshot: undefined };

describe('Journal', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'journal-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  test('reads back what was appended', async () => {
    const journal = await Journal.begin(folder, NEW);
    await journal.appendLayer(layer(0));
    await journal.appendLayer(layer(1));
    await journal.close();
    expect(await Journal.read(folder)).toEqual({ ...NEW, layers: [layer(0), layer(1)] });
  });

  test('keeps qualities that are infinite', async () => {
    const [projection] = layer(0).projections;
    const infinite = { ...projection!, record: { ...projection!.record!, baselineQuality: 31.5, bestQuality: Infinity } };
    const journal = await Journal.begin(folder, NEW);
    await journal.appendLayer({ ...layer(0), projections: [infinite] });
    await journal.close();
    expect((await Journal.read(folder))?.layers[0]?.projections).toEqual([infinite]);
  });

  test('cut at any byte it holds a prefix of the finished layers and goes on from there', async () => {
    const journal = await Journal.begin(folder, NEW);
    await journal.appendDense(DENSE);
    for (let index = 0; index < 3; index++) await journal.appendLayer(layer(index));
    await journal.close();
    const whole = await readFile(Journal.pathIn(folder));
    for (let length = 0; length < whole.byteLength; length += 7) {
      await writeFile(Journal.pathIn(folder), whole.subarray(0, length));
      const content = await Journal.read(folder);
      if (content === undefined) continue;
      expect(content.layers).toEqual([layer(0), layer(1), layer(2)].slice(0, content.layers.length));
      // Measured first, so it is there whenever a layer is.
      expect(content.dense).toEqual(content.layers.length > 0 ? DENSE : content.dense);
      const resumed = await Journal.begin(folder, { ...content, dense: DENSE });
      for (let index = content.layers.length; index < 3; index++) await resumed.appendLayer(layer(index));
      await resumed.close();
      expect(await readFile(Journal.pathIn(folder))).toEqual(whole);
    }
  });

  test('keeps the last measurement of the dense model, also one made after layers', async () => {
    const journal = await Journal.begin(folder, { ...NEW, dense: { digest: 'other', perplexity: 3 } });
    await journal.appendLayer(layer(0));
    await journal.appendDense(DENSE);
    await journal.appendLayer(layer(1));
    await journal.close();
    expect(await Journal.read(folder)).toEqual({ jobId: 'job', identity: 'identity', dense: DENSE, layers: [layer(0), layer(1)] });
  });

  test('keeps the layers after an infinite perplexity of the dense model', async () => {
    const journal = await Journal.begin(folder, { ...NEW, dense: { ...DENSE, perplexity: Infinity } });
    await journal.appendLayer(layer(0));
    await journal.close();
    const dense = { ...DENSE, perplexity: Infinity };
    expect(await Journal.read(folder)).toEqual({ jobId: 'job', identity: 'identity', dense, layers: [layer(0)] });
  });

  test('keeps targets that were computed before any layer, cut at any byte', async () => {
    const targets = new Map([
      ['layers.0.q.weight', 0.7],
      ['layers.1.q.weight', 0.1 + 0.2],
    ]);
    const journal = await Journal.begin(folder, { ...NEW, dense: DENSE });
    await journal.appendTargets(targets);
    await journal.appendLayer(layer(0));
    await journal.close();
    expect(await Journal.read(folder)).toEqual({ jobId: 'job', identity: 'identity', dense: DENSE, targets, layers: [layer(0)] });
    const whole = await readFile(Journal.pathIn(folder));
    for (let length = 0; length < whole.byteLength; length += 5) {
      await writeFile(Journal.pathIn(folder), whole.subarray(0, length));
      const content = await Journal.read(folder);
      // A layer was pruned by its targets, so they are there whenever a layer is.
      expect(content?.targets).toEqual(content !== undefined && content.layers.length > 0 ? targets : content?.targets);
      expect([undefined, targets]).toContainEqual(content?.targets);
    }
    const resumed = await Journal.begin(folder, { ...NEW, dense: DENSE, targets, layers: [layer(0)] });
    await resumed.close();
    expect(await readFile(Journal.pathIn(folder))).toEqual(whole);
  });

  test('keeps the last snapshot, and the layers around it', async () => {
    const snapshots = [2, 3].map((position) => ({ position, groups: [{ offset: 0, bytes: 8, digest: `of ${position}` }] }));
    const journal = await Journal.begin(folder, { ...NEW, layers: [layer(0)], snapshot: snapshots[0] });
    await journal.appendLayer(layer(1));
    await journal.appendSnapshot(snapshots[1]!);
    await journal.appendLayer(layer(2));
    await journal.close();
    expect(await Journal.read(folder)).toMatchObject({ layers: [layer(0), layer(1), layer(2)], snapshot: snapshots[1] });
    await writeFile(Journal.pathIn(folder), `{"identity":"x"}\n{"snapshot":{"position":1}}\n`);
    expect((await Journal.read(folder))?.snapshot).toBeUndefined();
  });

  test('ignores what follows a gap, and files that are no journal', async () => {
    const journal = await Journal.begin(folder, NEW);
    await journal.appendLayer(layer(0));
    await journal.appendLayer(layer(2));
    await journal.close();
    expect((await Journal.read(folder))?.layers).toEqual([layer(0)]);
    await writeFile(Journal.pathIn(folder), 'something else\n');
    expect(await Journal.read(folder)).toBeUndefined();
    await rm(Journal.pathIn(folder));
    expect(await Journal.read(folder)).toBeUndefined();
  });
});

/** Hidden states that are kept beside an unfinished output: what is lost goes on from them, and the result stays the same. */
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { TokenSource, type JobEvent, type JobSpec } from '@secateur/proto/job';
import { Cluster } from '../support/cluster.js';
import { prune, pruneSpec } from '../support/jobs.js';
import { hashOutput } from '../support/output-files.js';
import { fixturePath, temporaryFolder } from '../support/paths.js';
import { recordedSpans, type RecordedSpan } from '../support/spans.js';

const MODEL = 'books-opt';
const LAYERS = 4;
const calibration = TokenSource.fromPartial({ path: fixturePath('calibration', `${MODEL}-calibration.safetensors`), samples: 32 });

const folder = await temporaryFolder();
afterAll(() => folder[Symbol.asyncDispose]());

const outputOf = (name: string): string => join(folder.path, name);
const specOf = (name: string, snapshotEvery: number): JobSpec => ({
  ...pruneSpec(MODEL, outputOf(name), { calibration, snapshotEvery }),
  recordTrace: true,
});

/** The layers that were computed through again, by how often. */
function count(spans: readonly RecordedSpan[], name: string): number {
  return spans.filter((span) => span.name === name).length;
}

let reference: Readonly<Record<string, string>>;
beforeAll(async () => {
  await using cluster = await Cluster.start({ nodes: 1 });
  await prune(cluster.client, 'reference', specOf('reference', 0));
  expect(count(await recordedSpans(cluster.client, 'reference'), 'secateur.snapshot')).toBe(0);
  reference = await hashOutput(outputOf('reference'));
});

/** Whether the layer has begun. */
const begins = ({ event }: JobEvent, layer: number): boolean =>
  event?.$case === 'progress' && event.value.layer === layer && event.value.step === 'collect';

describe('a job that goes on', () => {
  /** Cancels a job when its last layer begins, and hands over the cluster and the files that are kept. */
  async function stopInLastLayer(cluster: Cluster, name: string, snapshotEvery: number): Promise<string> {
    const { client } = cluster;
    let cancelled: Promise<unknown> | undefined;
    const ended = prune(client, `${name}-1`, specOf(name, snapshotEvery), (event) => {
      if (begins(event, LAYERS - 1)) cancelled ??= client.cancelJob(`${name}-1`);
    });
    await expect(ended).rejects.toThrow('ended in state');
    await cancelled;
    return join(`${outputOf(name)}.partial`, 'hidden-states');
  }

  test.each([
    [1, LAYERS - 1],
    [2, 2],
  ])('with a snapshot every %d layers begins at the input of block %d', async (snapshotEvery, position) => {
    await using cluster = await Cluster.start({ nodes: 2 });
    const name = `every-${snapshotEvery}`;
    expect(await readdir(await stopInLastLayer(cluster, name, snapshotEvery))).toEqual([String(position)]);
    await prune(cluster.client, `${name}-2`, specOf(name, snapshotEvery));
    const spans = await recordedSpans(cluster.client, `${name}-2`);
    expect(count(spans, 'secateur.embed')).toBe(0);
    expect(count(spans, 'secateur.restore')).toBe(2);
    expect(count(spans, 'secateur.replay')).toBe(2 * (LAYERS - 1 - position));
    expect(await hashOutput(outputOf(name))).toEqual(reference);
    expect(await readdir(outputOf(name))).not.toContain('hidden-states');
  });

  test('does without the part of one whose bytes have changed', async () => {
    await using cluster = await Cluster.start({ nodes: 2 });
    const states = join(await stopInLastLayer(cluster, 'changed', 1), String(LAYERS - 1));
    const bytes = await readFile(states);
    bytes[100]! ^= 1;
    await writeFile(states, bytes);
    const { nodes } = await prune(cluster.client, 'changed-2', specOf('changed', 1));
    expect(nodes.map(({ lost }) => lost)).toEqual(['', '']);
    expect(count(await recordedSpans(cluster.client, 'changed-2'), 'secateur.embed')).toBe(1);
    expect(await hashOutput(outputOf('changed'))).toEqual(reference);
  });
});

test('what a killed node held begins at the last snapshot elsewhere', async () => {
  await using cluster = await Cluster.start({ nodes: 2 });
  let killed: Promise<void> | undefined;
  await prune(cluster.client, 'killed', specOf('killed', 1), (event) => {
    if (begins(event, LAYERS - 1)) killed ??= cluster.nodes[1]!.signal('SIGKILL');
  });
  await killed;
  const spans = await recordedSpans(cluster.client, 'killed');
  expect(count(spans, 'secateur.restore')).toBe(1);
  expect(count(spans, 'secateur.replay')).toBe(0);
  expect(await hashOutput(outputOf('killed'))).toEqual(reference);
});

test('what a killed node held is computed anew where the last snapshot was removed', async () => {
  await using cluster = await Cluster.start({ nodes: 2 });
  let killed: Promise<void> | undefined;
  const states = join(`${outputOf('removed')}.partial`, 'hidden-states');
  const { nodes } = await prune(cluster.client, 'removed', specOf('removed', 1), (event) => {
    if (begins(event, LAYERS - 1)) killed ??= rm(states, { recursive: true }).then(() => cluster.nodes[1]!.signal('SIGKILL'));
  });
  await killed;
  expect(nodes.filter(({ lost }) => lost !== '')).toHaveLength(1);
  const spans = await recordedSpans(cluster.client, 'removed');
  // Both nodes at the beginning, and the one that is left.
  expect(count(spans, 'secateur.embed')).toBe(3);
  expect(await hashOutput(outputOf('removed'))).toEqual(reference);
});

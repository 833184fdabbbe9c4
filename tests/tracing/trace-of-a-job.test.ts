/** A job on two nodes can be followed completely: every layer, every projection, every call, on both nodes. */
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { Cluster } from '../support/cluster.js';
import { prune, pruneSpec } from '../support/jobs.js';
import { OtlpReceiver, type ReceivedSpan } from '../support/otlp-receiver.js';
import { withTemporaryFolder } from '../support/paths.js';

const CLIENT = 3;
const SERVER = 2;
const LAYERS = 4;
const PROJECTIONS_PER_LAYER = 7;

/** Nanoseconds. */
const CLOCK_STEP = 2_000_000n;

describe('the trace of a job on two nodes', () => {
  let spans: readonly ReceivedSpan[];
  let byId: ReadonlyMap<string, ReceivedSpan>;
  let projectionNames: readonly string[];

  beforeAll(async () => {
    await using receiver = await OtlpReceiver.start();
    await withTemporaryFolder(async (folder) => {
      // The processes are stopped inside this block, which flushes their spans.
      await using cluster = await Cluster.start({ nodes: 2, environment: receiver.environment });
      const report = await prune(cluster.client, 'traced', pruneSpec('books-qwen2', join(folder, 'pruned')));
      projectionNames = report.projections.map(({ name }) => `${name}.weight`);
    });
    spans = [...receiver.spans];
    byId = new Map(spans.map((span) => [span.spanId, span]));
  });

  const named = (name: string): ReceivedSpan[] => spans.filter((span) => span.name === name);
  const rootOf = (span: ReceivedSpan): ReceivedSpan => {
    let root = span;
    for (let parent = byId.get(root.parentSpanId); parent !== undefined; parent = byId.get(root.parentSpanId)) root = parent;
    return root;
  };

  test('has one job root and one root per layer, linked to the job and to the layer before', () => {
    const [job, ...otherJobs] = named('secateur.job');
    expect(otherJobs).toHaveLength(0);
    expect(job?.parentSpanId).toBe('');
    const layers = named('secateur.layer').sort((left, right) => Number(left.startNanoseconds - right.startNanoseconds));
    expect(layers.map((layer) => layer.attributes['secateur.layer.index'])).toEqual([...Array(LAYERS).keys()]);
    expect(new Set(layers.map((layer) => layer.traceId)).size).toBe(LAYERS);
    for (const [index, layer] of layers.entries()) {
      expect(layer.parentSpanId).toBe('');
      const linked = layer.links.map(({ spanId }) => byId.get(spanId));
      expect(linked.some((span) => span?.traceId === job?.traceId)).toBe(true);
      if (index > 0) expect(linked).toContain(layers[index - 1]);
    }
  });

  test('shows the allocation of every projection below its layer, with its learning rates', () => {
    const allocations = named('secateur.allocate');
    expect(allocations.map((span) => span.attributes['secateur.projection']).sort()).toEqual([...projectionNames].sort());
    for (const span of allocations) {
      const layer = rootOf(span);
      expect(layer.name).toBe('secateur.layer');
      expect(String(span.attributes['secateur.projection'])).toContain(`layers.${String(layer.attributes['secateur.layer.index'])}.`);
    }
    const tried = spans.flatMap((span) => span.events).filter((event) => event.name === 'secateur.learning_rate_tried');
    expect(tried.length).toBeGreaterThanOrEqual(LAYERS * PROJECTIONS_PER_LAYER);
    expect(tried.every((event) => typeof event.attributes['secateur.quality'] === 'number')).toBe(true);
  });

  test('shows that each node has another allocation under way while it works on one', () => {
    for (const layer of named('secateur.layer')) {
      const allocations = named('secateur.allocate').filter((span) => span.traceId === layer.traceId);
      const nodes = new Set(allocations.map((span) => span.attributes['secateur.node']));
      expect(nodes.size).toBe(2);
      for (const node of nodes) {
        const ofNode = allocations.filter((span) => span.attributes['secateur.node'] === node);
        const mostAtOnce = (slack: bigint): number =>
          Math.max(
            ...ofNode.map(
              ({ startNanoseconds: start }) =>
                ofNode.filter((other) => other.startNanoseconds <= start && start + slack < other.endNanoseconds).length,
            ),
          );
        expect(mostAtOnce(0n)).toBeGreaterThanOrEqual(2);
        // Spans begin at whole milliseconds, so that one seems to begin before the one that it follows ends.
        expect(mostAtOnce(CLOCK_STEP)).toBeLessThanOrEqual(2);
      }
    }
  });

  test('has both nodes in every layer and the phases of the engine below their calls', () => {
    for (const layer of named('secateur.layer')) {
      const inside = spans.filter((span) => span.traceId === layer.traceId);
      expect(new Set(inside.filter((span) => span.service === 'secateur-kernel-node').map((span) => span.instance)).size).toBe(2);
      for (const phase of ['engine.gemm', 'engine.attention', 'engine.sort', 'engine.curves', 'engine.search']) {
        const found = inside.filter((span) => span.name === phase);
        expect(found.length).toBeGreaterThan(0);
        for (const span of found) expect(rootOf(span)).toBe(layer);
      }
    }
  });

  test('misses no rpc span: every client call has its server span and nothing hangs in the air', () => {
    const clients = spans.filter((span) => span.kind === CLIENT);
    const servers = spans.filter((span) => span.kind === SERVER);
    const calls = (method: string): number => clients.filter((span) => span.attributes['rpc.method'] === method).length;
    expect(calls('secateur.v1.KernelService/AllocateRows')).toBe(LAYERS * PROJECTIONS_PER_LAYER);
    // A slow node is given its groups bit by bit.
    expect(calls('secateur.v1.KernelService/CollectStatistics')).toBe(named('secateur.collect').length);
    expect(calls('secateur.v1.KernelService/CollectStatistics')).toBeGreaterThanOrEqual(LAYERS * 2);
    expect(calls('secateur.v1.KernelService/Propagate')).toBe(named('secateur.propagate').length);
    // The last block's output is nobody's input.
    const propagated = named('secateur.layer').map(
      (layer) => named('secateur.propagate').filter(({ traceId }) => traceId === layer.traceId).length >= 2,
    );
    expect(propagated.filter(Boolean)).toHaveLength(LAYERS - 1);
    expect(calls('secateur.v1.TensorService/Fetch')).toBeGreaterThan(LAYERS * 2);
    for (const client of clients) {
      const answered = servers.filter((server) => server.parentSpanId === client.spanId);
      expect(answered.map((server) => server.attributes['rpc.method'])).toEqual([client.attributes['rpc.method']]);
    }
    for (const span of spans.filter(({ parentSpanId }) => parentSpanId !== '')) {
      expect(byId.get(span.parentSpanId)?.traceId).toBe(span.traceId);
    }
  });
});

/** A node that stops answering without closing its connection is given up, and the job goes on without it. */
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { Cluster } from '../support/cluster.js';
import { prune, pruneSpec } from '../support/jobs.js';
import { withTemporaryFolder } from '../support/paths.js';

test('a frozen node', () =>
  withTemporaryFolder(async (folder) => {
    await using cluster = await Cluster.start({ nodes: 2 });
    const [, frozen] = cluster.nodes;
    const lost: string[] = [];
    let isFrozen = false;
    const report = await prune(cluster.client, 'job', pruneSpec('books-opt', join(folder, 'pruned')), ({ event }) => {
      if (event?.$case === 'nodeLost') lost.push(event.value.name);
      if (event?.$case !== 'progress' || event.value.layer !== 1 || isFrozen) return;
      isFrozen = true;
      process.kill(frozen?.pid ?? 0, 'SIGSTOP');
    });
    await frozen?.signal('SIGKILL');
    expect(lost).toEqual(['node-1']);
    expect(report.nodes.map(({ name, lost: reason }) => [name, reason === ''])).toEqual([
      ['node-0', true],
      ['node-1', false],
    ]);
  }));

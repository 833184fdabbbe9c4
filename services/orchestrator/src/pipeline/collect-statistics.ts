import { reduceStatistics, type ReducedSite } from '@secateur/core';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import type { SiteStatistics } from '@secateur/proto/statistics';
import type { NodeSession } from '../scheduler/node-session.js';
import type { HiddenStates } from './hidden-states.js';

/**
 * Runs a block on every group and reduces the statistics in group order, so that the result does not depend on which node computed
 * which group or in what order they answered (docs/algorithms.md, order of summation). `sketches`: of each sample; 0 for its last inputs.
 */
export async function collectStatistics(
  hiddenStates: HiddenStates,
  layer: number,
  shardId: string,
  sketches: number,
  prepare: (member: NodeSession, signal: AbortSignal) => Promise<void>,
  onGroup: () => void,
  signal: AbortSignal,
): Promise<readonly ReducedSite[]> {
  const byGroup = new Map<number, readonly SiteStatistics[]>();
  await hiddenStates.forEachGroup(
    layer,
    {
      prepare,
      advances: false,
      step: (member, groupIndices, onDone, linked) =>
        withSpan(
          SpanName.COLLECT,
          { attributes: { [Attribute.NODE]: member.node.name, [Attribute.GROUPS]: groupIndices.length } },
          async () => {
            let sites: SiteStatistics[] = [];
            for await (const { groupIndex, statistics, groupDone } of member.collectStatistics(shardId, groupIndices, sketches, linked)) {
              if (statistics !== undefined) sites.push(statistics);
              if (!groupDone) continue;
              byGroup.set(groupIndex, sites);
              sites = [];
              onDone(groupIndex);
              onGroup();
            }
          },
        ),
    },
    signal,
  );
  return reduceStatistics(byGroup, sketches);
}

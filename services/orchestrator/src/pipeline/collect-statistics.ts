import { reduceStatistics, type PlannedProjection, type ReducedSite } from '@secateur/core';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import type { InputSite, SiteStatistics } from '@secateur/proto/statistics';
import type { GramSites, NodeSession } from '../scheduler/node-session.js';
import { NOT_FINITE, problemOfStatistics } from './check-statistics.js';
import type { HiddenStates } from './hidden-states.js';

/** Of a pass that makes no Gram matrices. */
export const NO_GRAMS: GramSites = { sites: [], holdOut: false };

/** A pass through a block that leaves the hidden states as they are. */
export interface CollectingPass {
  readonly layer: number;
  readonly shardId: string;
  /** Whose statistics are wanted; the pass ends at the last of them. */
  readonly sites: readonly InputSite[];
  /** Of the block, which take those inputs. */
  readonly projections: readonly Pick<PlannedProjection, 'site' | 'columns'>[];
  /** Of these the inputs are added to Gram matrices too. */
  readonly grams: GramSites;
  /** Quality inputs of each sample that stand for all of its tokens; 0 for the inputs of its last token. */
  readonly sketches: number;
  /** Without it, all groups are run. */
  readonly groups?: ReadonlySet<number>;
  /** Makes a member ready for the pass. */
  readonly prepare: (member: NodeSession, signal: AbortSignal) => Promise<void>;
  readonly onGroup: () => void;
}

/**
 * Runs a block on every group and reduces the statistics in group order, so that the result does not depend on which node computed
 * which group or in what order they answered (docs/algorithms.md, order of summation).
 */
export async function collectStatistics(
  hiddenStates: HiddenStates,
  { layer, shardId, sites, projections, grams, sketches, groups, prepare, onGroup }: CollectingPass,
  signal: AbortSignal,
): Promise<readonly ReducedSite[]> {
  const byGroup = new Map<number, readonly SiteStatistics[]>();
  const columns = new Map(sites.map((site) => [site, projections.find((projection) => projection.site === site)!.columns]));
  await hiddenStates.forEachGroup(
    layer,
    {
      prepare,
      groups,
      advances: false,
      step: (member, groupIndices, onDone, linked) =>
        withSpan(
          SpanName.COLLECT,
          { attributes: { [Attribute.NODE]: member.node.name, [Attribute.GROUPS]: groupIndices.length } },
          async () => {
            let answered: SiteStatistics[] = [];
            for await (const { groupIndex, statistics, groupDone } of member.collectStatistics(
              shardId,
              { sites, grams, sketches },
              groupIndices,
              linked,
            )) {
              if (statistics !== undefined) answered.push(statistics);
              if (!groupDone) continue;
              const inputs = Math.max(1, sketches) * (hiddenStates.samplesOf(groupIndex) ?? 0);
              const problem = groupIndices.includes(groupIndex)
                ? problemOfStatistics(answered, { columns, inputs })
                : `group ${groupIndex}, which it was not asked for`;
              if (problem !== undefined) {
                const reason = problem === NOT_FINITE ? 'NON_FINITE_RESULT' : 'CORRUPT_DATA';
                throw member.wrongAnswer(`the statistics of layer ${layer}`, problem, reason);
              }
              byGroup.set(groupIndex, answered);
              answered = [];
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

import { Propagation } from '@secateur/proto/job';
import type { InputSite } from '@secateur/proto/statistics';
import { SecateurError } from '../errors.js';
import type { PlannedBlock, PlannedProjection } from '../model/model-plan.js';

/** A part of pruning a block. Its projections are masked before the next part begins. */
export interface PruningStage {
  /** Sites whose statistics are collected first, in network order. */
  readonly collects: readonly InputSite[];
  /** Projections that are allocated then, in network order. */
  readonly allocates: readonly PlannedProjection[];
}

/**
 * The stages in which projections of one block, given in network order, are pruned (docs/algorithms.md, inputs of a block). Without a
 * projection there is none.
 */
export function planStages(projections: readonly PlannedProjection[], propagation: Propagation): PruningStage[] {
  if (projections.length === 0) return [];
  const sites = [...new Set(projections.map(({ site }) => site))];
  const readersOf = (site: InputSite): PlannedProjection[] => projections.filter((projection) => projection.site === site);
  switch (propagation) {
    case Propagation.DENSE_BLOCK:
      return [{ collects: sites, allocates: projections }];
    case Propagation.STAGED:
      return sites.map((site) => ({ collects: [site], allocates: readersOf(site) }));
    case Propagation.RECALCULATED_INPUTS:
      // Nothing is pruned before the first site, so there is nothing to collect of it again.
      return sites.map((site, place) => ({ collects: place === 0 ? sites : [site], allocates: readersOf(site) }));
    default:
      throw new SecateurError('INTERNAL', 'The stages of a block were asked for before the defaults of its job were filled in.');
  }
}

/** The projections that a pass runs which ends at the last of the collected sites. */
export function projectionsRun({ projections }: PlannedBlock, { collects }: Pick<PruningStage, 'collects'>): PlannedProjection[] {
  const last = Math.max(...collects);
  return projections.filter(({ site }) => site < last);
}

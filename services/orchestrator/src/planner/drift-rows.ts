import type { PlannedProjection } from '@secateur/core';
import { TensorRole } from '@secateur/proto/model';
import type { InputSite } from '@secateur/proto/statistics';

const ADDED_TO_HIDDEN_STATES: ReadonlySet<TensorRole> = new Set([TensorRole.OUTPUT_WEIGHT, TensorRole.DOWN_WEIGHT]);

/** Of the inputs of projections. Outputs that are added to hidden states bring the drift of those along. */
export function driftRowsOf(projections: readonly PlannedProjection[]): Map<InputSite, number> {
  return new Map(projections.map(({ site, role, rows, columns }) => [site, columns + (ADDED_TO_HIDDEN_STATES.has(role) ? rows : 0)]));
}

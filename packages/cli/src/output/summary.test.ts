import { describe, expect, test } from '@jest/globals';
import { PruneReport } from '@secateur/proto/pruning_service';
import { formatPruneReport } from './summary.js';

describe('the summary of a job that repairs', () => {
  const summary = (...dampings: readonly number[]): string => {
    const projections = dampings.map((damping, index) => ({
      name: `model.layers.0.mlp.${index}`,
      rows: 2,
      columns: 2,
      record: { dropped: 2 },
      repair: { errorBefore: 0.2, errorAfter: 0.1, damping },
    }));
    return formatPruneReport(PruneReport.fromPartial({ config: { repair: { damping: 0.01 } }, projections, layerSeconds: [1] }));
  };

  test('says what that does to the errors, and warns of nothing', () => {
    expect(summary(0.01, 0.01)).toContain('20.00 % with the mask alone, 10.00 % now');
    expect(summary(0.01, 0.01)).not.toContain('Warning');
  });

  test('warns where a Gram matrix needed more damping than was asked for', () => {
    expect(summary(0.01, 0.1)).toContain(
      'Gram matrix of model.layers.0.mlp.1 has no factor with 0.01 of its mean diagonal added, so up to 0.1',
    );
    expect(summary(0.1, 0.01, 1)).toContain('model.layers.0.mlp.0 and 1 more');
  });
});

import { Allocation, AllocationOptions, Repair, RepairOptions, RepairTargets, Score } from '@secateur/proto/allocation';
import { LayerBudget, Pattern, Preset, Propagation, TokenSource, type PruneSpec } from '@secateur/proto/job';

/** Of the preset `fast`: enough for Gram matrices, and a fraction of the work (docs/quality.md). */
const FEW_SAMPLES = 32;
const FEW_FIT_ITERATIONS = 5;

/** A spec with what its preset says about settings it leaves open. What a pattern or given rows decide is left to them. */
export function withPreset(spec: PruneSpec): PruneSpec {
  const { preset } = spec;
  if (preset !== Preset.FAST && preset !== Preset.BEST) return spec;
  const options = spec.options ?? AllocationOptions.fromPartial({});
  const repair = spec.repair ?? RepairOptions.fromPartial({});
  const rowsAreFree = spec.rowSparsities === '' && spec.pattern !== Pattern.GROUPED && options.groupPattern === undefined;
  const budgetIsFree = rowsAreFree && (spec.selection?.targets.length ?? 0) === 0 && !spec.layerBudgetOptions?.file;
  const allocation = options.allocation || (rowsAreFree ? Allocation.UNIFORM : Allocation.UNSPECIFIED);
  // It repairs by itself.
  const repaired = options.score !== Score.SPARSEGPT;
  if (preset === Preset.FAST) {
    const calibration = spec.calibration ?? TokenSource.fromPartial({});
    return {
      ...spec,
      options: { ...options, allocation },
      calibration: { ...calibration, samples: calibration.samples || FEW_SAMPLES },
      repair: repaired ? { ...repair, method: repair.method || Repair.FIT, iterations: repair.iterations || FEW_FIT_ITERATIONS } : repair,
    };
  }
  const layerBudget = spec.layerBudget || (budgetIsFree ? LayerBudget.OPTIMAL : LayerBudget.UNSPECIFIED);
  const method = repair.method || (rowsAreFree ? Repair.ADMM : Repair.FIT);
  if (!repaired || method === Repair.NONE) return { ...spec, options: { ...options, allocation }, layerBudget };
  // Staged inputs pay only with dense targets, which need them.
  const propagation = spec.propagation || (repair.targets === RepairTargets.OWN ? Propagation.UNSPECIFIED : Propagation.STAGED);
  const targets = repair.targets || (propagation === Propagation.STAGED ? RepairTargets.DENSE : RepairTargets.UNSPECIFIED);
  return { ...spec, options: { ...options, allocation }, layerBudget, propagation, repair: { ...repair, method, targets } };
}

import { access } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { dataFormatOf, expandDataPath, isStoreUrl } from '@secateur/checkpoint';
import { resolveJobSpec, SecateurError, validateJobId, type FieldViolation } from '@secateur/core';
import type { JobSpec } from '@secateur/proto/job';

/** Flags of the fields that a service may find wrong. */
const FLAGS: Readonly<Record<string, string>> = {
  'evaluate.data.samples': '--samples',
  'evaluate.data.sequence_length': '--seq-len',
  'evaluate.stride': '--stride',
  'prune.calibration.samples': '--samples',
  'prune.calibration.sequence_length': '--seq-len',
  'prune.evaluation.samples': '--eval-samples',
  'prune.layer_budget': '--layer-budget',
  'prune.layer_budget_options.alpha': '--alpha-metric, --alpha-epsilon, --alpha-per',
  'prune.layer_budget_options.alpha.epsilon': '--alpha-epsilon',
  'prune.layer_budget_options.file': '--layer-budget',
  'prune.layer_budget_options.optimal': '--optimal-spread, --optimal-samples',
  'prune.layer_budget_options.optimal.spread': '--optimal-spread',
  'prune.layer_budget_options.owl': '--owl-lambda, --owl-threshold',
  'prune.layer_budget_options.owl.lambda': '--owl-lambda',
  'prune.layer_budget_options.owl.threshold': '--owl-threshold',
  'prune.options.allocation': '--allocation',
  'prune.options.score': '--score',
  'prune.options.layer_quality': '--layer-quality',
  'prune.options.row_quality': '--row-quality',
  'prune.pattern': '--pattern',
  'prune.preset': '--preset',
  'prune.quality_inputs': '--quality-inputs',
  'prune.propagation': '--propagation',
  'prune.repair.method': '--repair',
  'prune.repair.damping': '--repair-damping',
  'prune.repair.targets': '--repair-targets',
  'prune.repair.iterations': '--repair-iterations',
  'prune.swap': '--swap',
  'prune.swap.most': '--swap',
  'prune.row_sparsities': '--row-sparsities',
  'prune.sketches': '--sketches',
  'prune.sparsity': '--sparsity',
  'prune.options.iterations': '--iterations',
  'prune.options.learning_rates': '--learning-rates',
  'prune.selection.only': '--only',
  'prune.selection.skip': '--skip',
  'prune.selection.skip_layers': '--skip-layers',
  'prune.selection.targets': '--target',
  job_id: '--job-id',
  priority: '--priority',
  maximum_attempts: '--attempts',
};

/** What is to be there, or not to be there, on this machine before a job is begun. */
export interface PathCheck {
  readonly flag: string;
  readonly path: string;
  readonly expected: 'exists' | 'folder exists' | 'is data' | 'is new';
}

/** INVALID_REQUEST with every path that is not as expected. */
export async function checkPaths(checks: readonly PathCheck[]): Promise<void> {
  const violations = await findPathViolations(checks);
  if (violations.length > 0) throw new SecateurError('INVALID_REQUEST', 'Wrong options:', { violations });
}

/** The spec with its defaults; INVALID_REQUEST with everything that can be seen to be wrong before any process is started. */
export async function checkRequest(
  spec: JobSpec,
  checks: readonly PathCheck[],
  { jobId, purpose = 'run' }: { readonly jobId?: string | undefined; readonly purpose?: 'run' | 'plan' } = {},
): Promise<JobSpec> {
  let resolved: JobSpec | undefined;
  const violations = [
    ...violationsOf(() => (resolved = resolveJobSpec(spec, purpose))),
    ...(jobId === undefined ? [] : violationsOf(() => validateJobId(jobId))),
    ...(await findPathViolations(checks)),
  ];
  if (resolved === undefined || violations.length > 0) throw new SecateurError('INVALID_REQUEST', 'Wrong options:', { violations });
  return resolved;
}

function violationsOf(validate: () => unknown): FieldViolation[] {
  try {
    validate();
    return [];
  } catch (error) {
    if (!(error instanceof SecateurError) || error.violations.length === 0) throw error;
    return error.violations.map(({ field, description }) => ({ field: FLAGS[field] ?? field, description }));
  }
}

async function findPathViolations(checks: readonly PathCheck[]): Promise<FieldViolation[]> {
  return (await Promise.all(checks.map(checkPath))).flat();
}

async function checkPath({ flag, path, expected }: PathCheck): Promise<FieldViolation[]> {
  // What is in a store is for the service to see, which has the credentials.
  if (isStoreUrl(path)) return [];
  const absolute = resolve(path);
  const found = await exists(absolute);
  switch (expected) {
    case 'exists':
      return found ? [] : [{ field: flag, description: `${absolute} does not exist` }];
    case 'is data':
      return expandDataPath(absolute).then(
        ({ files }) => formatViolations(flag, files),
        () => [{ field: flag, description: `${absolute} does not exist` }],
      );
    case 'is new':
      if (found) return [{ field: flag, description: `${absolute} exists already; choose another name or remove it` }];
      return checkPath({ flag, path, expected: 'folder exists' });
    case 'folder exists':
      return (await exists(dirname(absolute)))
        ? []
        : [{ field: flag, description: `${dirname(absolute)}, where it is to go, does not exist` }];
  }
}

/** The first file whose name is that of no data; a folder may have thousands. */
function formatViolations(flag: string, files: readonly string[]): FieldViolation[] {
  try {
    files.forEach(dataFormatOf);
    return [];
  } catch (error) {
    if (!(error instanceof SecateurError)) throw error;
    return [{ field: flag, description: error.message }];
  }
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

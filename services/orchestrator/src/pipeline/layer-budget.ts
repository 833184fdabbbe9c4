import {
  projectionName,
  splitByExponents,
  splitByOutliers,
  splitBySensitivities,
  type AlphaBudget,
  type ComputedBudget,
  type OptimalBudget,
  type OwlBudget,
  type ProjectionTargets,
} from '@secateur/core';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import type { PruneSpec } from '@secateur/proto/job';
import type { PrunedOutput } from '../output/pruned-output.js';
import { prunedProjections, type PrunePlan } from '../planner/job-plan.js';
import { budgetingWith } from '../planner/workload.js';
import type { Crew } from '../scheduler/crew.js';
import { countOutliers } from './count-outliers.js';
import { fitSpectra } from './fit-spectra.js';
import { contextOf, type JobRun } from './job-run.js';
import { measureSensitivities } from './measure-sensitivities.js';
import type { StepClock } from './step-clock.js';

interface Budgeting {
  readonly run: JobRun;
  readonly spec: PruneSpec;
  readonly output: PrunedOutput;
  readonly crew: Crew;
  readonly clock: StepClock;
}

/**
 * The plan with the targets of its projections: computed from the dense model where they are not known yet, unless an earlier attempt of the
 * job has computed them.
 */
export async function withLayerBudget(plan: PrunePlan, { run, spec, output, crew, clock }: Budgeting): Promise<PrunePlan> {
  const { computedBudget: budget } = plan;
  const work = budgetingWith(spec);
  if (budget === undefined || work === undefined) return plan;
  const targets = await output.targets(() =>
    clock.measure('budget', async () => {
      await crew.turnTo(contextOf(run, plan, work));
      return withSpan(SpanName.BUDGET, { attributes: { [Attribute.JOB_ID]: run.jobId } }, () =>
        splitBy(budget, run, plan, spec.sparsity, crew),
      );
    }),
  );
  return { ...plan, targets, computedBudget: undefined };
}

function splitBy(budget: ComputedBudget, run: JobRun, plan: PrunePlan, sparsity: number, crew: Crew): Promise<ProjectionTargets> {
  switch (budget.rule) {
    case 'owl':
      return splitByOwl(run, plan, sparsity, budget, crew);
    case 'alpha':
      return splitByAlpha(run, plan, sparsity, budget, crew);
    case 'optimal':
      return splitForLeastError(run, plan, sparsity, budget, crew);
  }
}

async function splitForLeastError(
  run: JobRun,
  plan: PrunePlan,
  sparsity: number,
  { spread }: OptimalBudget,
  crew: Crew,
): Promise<ProjectionTargets> {
  const measured = await measureSensitivities(run, plan, sparsity, crew);
  const targets = splitBySensitivities(
    measured.map(({ projection, error }) => ({ weights: projection.rows * projection.columns, error })),
    { sparsity, spread },
  );
  return new Map(measured.map(({ projection }, index) => [projection.name, targets[index]!]));
}

async function splitByOwl(run: JobRun, plan: PrunePlan, sparsity: number, budget: OwlBudget, crew: Crew): Promise<ProjectionTargets> {
  const blocks = await countOutliers(run, plan, budget.threshold, crew);
  const targets = splitByOutliers(blocks, { sparsity, lambda: budget.lambda });
  return new Map(blocks.flatMap(({ block }, index) => prunedProjections(plan, block).map(({ name }) => [name, targets[index]!] as const)));
}

async function splitByAlpha(run: JobRun, plan: PrunePlan, sparsity: number, budget: AlphaBudget, crew: Crew): Promise<ProjectionTargets> {
  const blocks = await fitSpectra(run, plan, budget.metric, crew);
  const entries = blocks.flatMap(({ projections, exponents }) => {
    const mean = exponents.reduce((sum, exponent) => sum + exponent, 0) / exponents.length;
    return projections.map((projection, index) => ({
      tensor: projection.name,
      name: projectionName(projection),
      weights: projection.rows * projection.columns,
      exponent: budget.per === 'block' ? mean : exponents[index]!,
    }));
  });
  const targets = splitByExponents(entries, { sparsity, epsilon: budget.epsilon });
  return new Map(entries.map(({ tensor }, index) => [tensor, targets[index]!]));
}

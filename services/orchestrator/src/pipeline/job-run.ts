import { JobState } from '@secateur/proto/job';
import type { GetReportResponse } from '@secateur/proto/pruning_service';
import type { Resources } from '@secateur/rpc';
import type { JobLease } from '../jobs/job-lease.js';
import type { JobLog } from '../jobs/job-log.js';
import type { JobTrace } from '../jobs/job-trace.js';
import type { OutputPlaces } from '../output/output-places.js';
import type { NodePool } from '../scheduler/node-pool.js';
import { Crew } from '../scheduler/crew.js';
import type { SessionContext } from '../scheduler/node-session.js';
import { sizeOf, type JobPlan } from '../planner/job-plan.js';
import { largestWorkload, type JobWork } from '../planner/workload.js';

/** What a pipeline gets to run one attempt of a job. */
export interface JobRun {
  readonly jobId: string;
  readonly maximumNodes: number;
  /** Whether spans are recorded for GetTrace. */
  readonly recordTrace: boolean;
  readonly pool: NodePool;
  readonly resources: Resources;
  /** HOST:PORT at which nodes reach this orchestrator's TensorService. */
  readonly tensorEndpoint: string;
  /** Folders and stores the job may read from. */
  readonly roots: readonly string[];
  readonly outputs: OutputPlaces;
  readonly log: JobLog;
  /** Blocks whose end the log has told of in earlier attempts. */
  readonly toldLayers: number;
  /** The right to run the job, to be asked for before anything that others would see. */
  readonly lease: JobLease;
  readonly trace: JobTrace;
  readonly signal: AbortSignal;
  /** Stores what the job found before its output has its name. */
  readonly saveReport: (report: NonNullable<GetReportResponse['report']>) => Promise<void>;
}

/** What a crew needs of a run. */
export interface CrewRun extends Pick<JobRun, 'jobId' | 'maximumNodes' | 'pool' | 'tensorEndpoint'> {
  readonly lease: Pick<JobLease, 'token'>;
  readonly log: Pick<JobLog, 'append'>;
}

/** What sessions are opened with for a kind of work, when so many nodes share it. */
export function contextOf(run: CrewRun, plan: JobPlan, work: JobWork): (nodes: number) => SessionContext {
  return (nodes) => ({
    jobId: run.jobId,
    lease: run.lease.token,
    architecture: plan.model.architecture,
    tensorEndpoint: run.tensorEndpoint,
    compute: work.compute,
    hiddenStates: work.hiddenStates,
    workload: largestWorkload(plan, work, nodes),
  });
}

/** The nodes of a run, which tell the job's log when they come and go. */
export function gatherCrew(run: CrewRun, plan: JobPlan, work: JobWork): Crew {
  return new Crew(run.pool, contextOf(run, plan, work), run.maximumNodes, {
    onJoined: ({ address, name }) => run.log.append({ $case: 'nodeJoined', value: { address, name } }),
    onLost: ({ address, name }, reason) => run.log.append({ $case: 'nodeLost', value: { address, name, reason } }),
  });
}

/** Parts of a step that are told of: the log keeps them all, and a job may have thousands of groups. */
const TOLD_PARTS = 100;

/** Tells the job's log how far a step has come. */
export class StepProgress {
  private done = 0;

  constructor(
    private readonly run: { readonly log: Pick<JobLog, 'append'> },
    private readonly layer: number,
    private readonly step: string,
    private readonly total: number,
  ) {
    this.report();
  }

  advance(): void {
    const toldOf = (done: number): number => Math.floor((done * TOLD_PARTS) / this.total);
    this.done += 1;
    if (this.total <= TOLD_PARTS || toldOf(this.done) > toldOf(this.done - 1)) this.report();
  }

  private report(): void {
    const { layer, step, done, total } = this;
    this.run.log.append({ $case: 'progress', value: { layer, step, done, total } });
  }
}

/** Tells the job's log that the checks are over and the work begins. */
export function announcePlan(run: JobRun, plan: JobPlan, resumedLayers: number): void {
  const { samples, sequenceLength } = sizeOf(plan);
  const projections = plan.model.blocks.flatMap((block) => block.projections);
  const weights = projections.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
  run.log.append({ $case: 'stateChanged', value: { state: JobState.RUNNING, error: undefined } });
  run.log.append({ $case: 'planned', value: { layers: plan.model.blocks.length, resumedLayers, samples, sequenceLength, weights } });
}

import { randomUUID } from 'node:crypto';
import { resolve } from 'node:path';
import { stat } from 'node:fs/promises';
import { resolveInsideRoots } from '@secateur/checkpoint';
import { hasEnded, pathsOf, resolveJobSpec, SecateurError, validateJobId } from '@secateur/core';
import { type Resources, toStatusProto } from '@secateur/rpc';
import { Attribute, SpanName, withSpan, type SpanRecorder } from '@secateur/telemetry';
import { JobSpec, JobState, type Job, type LayerBudgetOptions, type TokenSource } from '@secateur/proto/job';
import type { JobPlan } from '@secateur/proto/plan';
import type { GetReportResponse } from '@secateur/proto/pruning_service';
import type { Logger } from 'pino';
import { runEvaluate } from '../pipeline/evaluate.js';
import type { JobRun } from '../pipeline/job-run.js';
import { runPrune } from '../pipeline/prune.js';
import { outlineJob } from '../planner/outline-job.js';
import type { NodePool } from '../scheduler/node-pool.js';
import { JobLog, now } from './job-log.js';
import { JobTrace } from './job-trace.js';

/** Jobs kept in memory; the oldest ended ones are forgotten first. */
const MAXIMUM_JOBS = 10_000;
/** How long a plan waits for the configured nodes to answer. */
const NODES_TIMEOUT_MS = 10_000;
/** Why a job's signal aborts when the orchestrator shuts down. */
const STOPPING = Symbol('the orchestrator is stopping');

export interface JobManagerOptions {
  readonly pool: NodePool;
  readonly resources: Resources;
  readonly recorder: SpanRecorder;
  readonly logger: Logger;
  /** Folders that jobs may read from and write to. */
  readonly roots: readonly string[];
  /** HOST:PORT at which nodes reach this orchestrator; known once it listens. */
  readonly tensorEndpoint: () => string;
}

type Report = NonNullable<GetReportResponse['report']>;

interface ManagedJob {
  /** The spec as it was given, to recognise the same request. */
  readonly requested: JobSpec;
  readonly log: JobLog;
  readonly trace: JobTrace;
  abort: AbortController;
  finished: Promise<void>;
  report: Report | undefined;
}

/** Accepts jobs, runs them one after the other, and answers what became of them. */
export class JobManager {
  private readonly jobs = new Map<string, ManagedJob>();
  private queue: Promise<void> = Promise.resolve();
  private stopping = false;

  constructor(private readonly options: JobManagerOptions) {}

  /** Accepts a job; the same id and spec again return the same job, and make one that failed or was cancelled go on. */
  async create(requestedId: string, requested: JobSpec | undefined): Promise<Job> {
    if (this.stopping) throw new SecateurError('UNAVAILABLE', 'This orchestrator is shutting down.');
    if (requested === undefined) throw new SecateurError('INVALID_REQUEST', 'CreateJob needs a spec.');
    const id = requestedId === '' ? randomUUID() : requestedId;
    validateJobId(id);
    const existing = this.jobs.get(id);
    if (existing !== undefined) return this.recreate(id, existing, requested);
    const spec = await this.confine(resolveJobSpec(requested));
    this.refuseSharedOutput(id, spec);
    const log = new JobLog({
      id,
      spec,
      state: JobState.QUEUED,
      createdAt: now(),
      finishedAt: undefined,
      finishedLayers: 0,
      layers: 0,
      resumedLayers: 0,
      error: undefined,
    });
    const job: ManagedJob = {
      requested,
      log,
      trace: new JobTrace(spec.recordTrace, this.options.recorder),
      abort: new AbortController(),
      finished: Promise.resolve(),
      report: undefined,
    };
    this.jobs.set(id, job);
    this.forgetOldest();
    this.enqueue(id, job);
    return log.job;
  }

  /** Tells what a job would do with the nodes there are; nothing is written. */
  async plan(requested: JobSpec | undefined, signal: AbortSignal): Promise<JobPlan> {
    if (requested === undefined) throw new SecateurError('INVALID_REQUEST', 'PlanJob needs a spec.');
    const spec = await this.confine(resolveJobSpec(requested, 'plan'));
    const { pool, roots } = this.options;
    const wanted = maximumNodesOf(spec);
    const nodes = await pool.settle(Math.min(pool.nodes.length, wanted), NODES_TIMEOUT_MS, signal);
    if (nodes.length === 0) throw new SecateurError('UNAVAILABLE', 'No kernel node can be asked: none is healthy.');
    return outlineJob(spec, nodes.slice(0, wanted), roots, signal);
  }

  get(id: string): Job {
    return this.find(id).log.job;
  }

  /** Newest first. */
  list(): Job[] {
    return [...this.jobs.values()].map(({ log }) => log.job).reverse();
  }

  log(id: string): JobLog {
    return this.find(id).log;
  }

  report(id: string): Report {
    const job = this.find(id);
    if (job.report === undefined) {
      throw new SecateurError('FAILED_PRECONDITION', `Job ${id} has not succeeded, so there is no report.`);
    }
    return job.report;
  }

  trace(id: string): JobTrace {
    return this.find(id).trace;
  }

  async cancel(id: string): Promise<Job> {
    const job = this.find(id);
    job.abort.abort();
    if (job.log.job.state === JobState.QUEUED) {
      job.log.append({ $case: 'stateChanged', value: { state: JobState.CANCELLED, error: undefined } });
    }
    if (!hasEnded(job.log.job.state)) await job.finished;
    return job.log.job;
  }

  /** Stops all jobs; what they finished stays on disk for the next attempt. */
  async stop(): Promise<void> {
    this.stopping = true;
    for (const job of this.jobs.values()) job.abort.abort(STOPPING);
    await this.queue;
  }

  private recreate(id: string, job: ManagedJob, requested: JobSpec): Job {
    if (!sameSpec(job.requested, requested)) {
      throw new SecateurError('ALREADY_EXISTS', `Job ${id} exists with another spec; choose another id.`);
    }
    const { state } = job.log.job;
    if (state === JobState.FAILED || state === JobState.CANCELLED) {
      job.abort = new AbortController();
      job.log.append({ $case: 'stateChanged', value: { state: JobState.QUEUED, error: undefined } });
      this.enqueue(id, job);
    }
    return job.log.job;
  }

  private enqueue(id: string, job: ManagedJob): void {
    const { signal } = job.abort;
    const finished = this.queue.then(() => (signal.aborted ? undefined : this.run(id, job, signal)));
    job.finished = finished;
    this.queue = finished;
  }

  private async run(id: string, job: ManagedJob, signal: AbortSignal): Promise<void> {
    const { log } = job;
    const { logger, pool, resources, tensorEndpoint } = this.options;
    const { spec } = log.job;
    const changeState = (state: JobState, error?: SecateurError): void =>
      log.append({ $case: 'stateChanged', value: { state, error: error && toStatusProto(error) } });
    logger.info({ jobId: id }, 'job begins');
    changeState(JobState.PLANNING);
    const run: JobRun = {
      jobId: id,
      maximumNodes: maximumNodesOf(spec),
      recordTrace: spec?.recordTrace === true,
      pool,
      resources,
      tensorEndpoint: tensorEndpoint(),
      roots: this.options.roots,
      log,
      trace: job.trace,
      signal,
    };
    try {
      const attributes = { [Attribute.JOB_ID]: id, [Attribute.TRACE_RECORD]: run.recordTrace };
      job.report = await withSpan(SpanName.JOB, { root: true, attributes }, (span) => {
        job.trace.add(span.spanContext().traceId);
        return runSpec(run, spec);
      });
      changeState(JobState.SUCCEEDED);
      logger.info({ jobId: id }, 'job succeeded');
    } catch (error) {
      if (signal.reason === STOPPING) {
        changeState(JobState.FAILED, new SecateurError('UNAVAILABLE', 'The orchestrator was stopped; create the job again to go on.'));
        logger.warn({ jobId: id }, 'job stopped');
      } else if (signal.aborted) {
        changeState(JobState.CANCELLED);
        logger.info({ jobId: id }, 'job cancelled');
      } else {
        changeState(JobState.FAILED, explain(error));
        // What a caller can understand and mend needs no stack in our log.
        if (error instanceof SecateurError && error.reason !== 'INTERNAL') {
          logger.warn({ jobId: id, reason: error.reason, message: error.message }, 'job failed');
        } else {
          logger.error({ jobId: id, err: error }, 'job failed');
        }
      }
    }
  }

  /** The spec with absolute paths, all inside the allowed roots. */
  private async confine(spec: JobSpec): Promise<JobSpec> {
    const { roots } = this.options;
    switch (spec.kind?.$case) {
      case 'prune': {
        const { value } = spec.kind;
        const model = await resolveInsideRoots(value.model, roots);
        // A job that is only planned may name neither output nor data.
        const output = value.output && (await resolveInsideRoots(value.output, roots));
        if (output !== '' && (await stat(output).catch(() => undefined)) !== undefined) {
          throw new SecateurError('ALREADY_EXISTS', `The output folder ${output} exists; choose another or remove it.`);
        }
        const calibration = value.calibration && (await confineSource(value.calibration, roots));
        const evaluation = value.evaluation && (await confineSource(value.evaluation, roots));
        const rowSparsities = value.rowSparsities && (await resolveInsideRoots(value.rowSparsities, roots));
        const layerBudgetOptions = await confineRatios(value.layerBudgetOptions, roots);
        return {
          ...spec,
          kind: { $case: 'prune', value: { ...value, model, output, calibration, evaluation, rowSparsities, layerBudgetOptions } },
        };
      }
      case 'evaluate': {
        const { value } = spec.kind;
        const model = await resolveInsideRoots(value.model, roots);
        const data = value.data && (await confineSource(value.data, roots));
        const tasks = await Promise.all(value.tasks.map(async (task) => ({ ...task, path: await resolveInsideRoots(task.path, roots) })));
        return { ...spec, kind: { $case: 'evaluate', value: { ...value, model, data, tasks } } };
      }
      case undefined:
        throw new SecateurError('INVALID_REQUEST', 'The spec has no kind; set prune or evaluate.');
    }
  }

  private refuseSharedOutput(id: string, spec: JobSpec): void {
    const output = outputOf(spec);
    if (output === undefined) return;
    for (const [otherId, { log }] of this.jobs) {
      if (otherId !== id && !hasEnded(log.job.state) && outputOf(log.job.spec) === output) {
        throw new SecateurError('ALREADY_EXISTS', `Job ${otherId} is writing to ${output}; choose another output folder.`);
      }
    }
  }

  private forgetOldest(): void {
    for (const [id, { log }] of this.jobs) {
      if (this.jobs.size <= MAXIMUM_JOBS) return;
      if (hasEnded(log.job.state)) this.jobs.delete(id);
    }
  }

  private find(id: string): ManagedJob {
    const job = this.jobs.get(id);
    if (job === undefined) throw new SecateurError('NOT_FOUND', `There is no job ${id}.`);
    return job;
  }
}

/** The source with absolute paths inside the roots. Of a glob, only the folder it begins in can be looked at before it is expanded.
 * A job that is only planned may name no data. */
async function confineSource(source: TokenSource, roots: readonly string[]): Promise<TokenSource> {
  const [path = '', ...morePaths] = await Promise.all(pathsOf(source).map((given) => resolveInsideRoots(given, roots)));
  return { ...source, path, morePaths };
}

async function confineRatios(options: LayerBudgetOptions | undefined, roots: readonly string[]): Promise<LayerBudgetOptions | undefined> {
  if (options === undefined || options.file === '') return options;
  return { ...options, file: await resolveInsideRoots(options.file, roots) };
}

async function runSpec(run: JobRun, spec: JobSpec | undefined): Promise<Report> {
  switch (spec?.kind?.$case) {
    case 'prune':
      return { $case: 'prune', value: await runPrune(run, spec.kind.value) };
    case 'evaluate':
      return { $case: 'evaluate', value: await runEvaluate(run, spec.kind.value) };
    case undefined:
      throw new SecateurError('INVALID_REQUEST', 'The spec has no kind; set prune or evaluate.');
  }
}

/** What callers are told of an error; defects keep their text in the log. */
function explain(error: unknown): SecateurError {
  return error instanceof SecateurError
    ? error
    : new SecateurError('INTERNAL', "A defect stopped the job; the orchestrator's log has the details.");
}

function maximumNodesOf(spec: JobSpec | undefined): number {
  return spec?.maximumNodes || Number.POSITIVE_INFINITY;
}

function outputOf(spec: JobSpec | undefined): string | undefined {
  return spec?.kind?.$case === 'prune' ? resolve(spec.kind.value.output) : undefined;
}

function sameSpec(left: JobSpec, right: JobSpec): boolean {
  return Buffer.from(JobSpec.encode(left).finish()).equals(JobSpec.encode(right).finish());
}

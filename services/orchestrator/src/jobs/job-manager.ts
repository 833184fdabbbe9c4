import { randomUUID } from 'node:crypto';
import type { AuditActions } from '@secateur/access';
import { hasEnded, isBegun, resolveJobSpec, SecateurError, validateJobId } from '@secateur/core';
import type { Caller, Resources } from '@secateur/rpc';
import { Attribute, SpanName, withSpan, type SpanRecorder } from '@secateur/telemetry';
import { JobSpec, JobState, type Job, type JobEvent } from '@secateur/proto/job';
import type { JobPlan } from '@secateur/proto/plan';
import { GetReportResponse } from '@secateur/proto/pruning_service';
import type { Logger } from 'pino';
import type { OutputPlaces } from '../output/output-places.js';
import { runEvaluate } from '../pipeline/evaluate.js';
import type { JobRun } from '../pipeline/job-run.js';
import { runPrune } from '../pipeline/prune.js';
import { outlineJob } from '../planner/outline-job.js';
import type { NodePool } from '../scheduler/node-pool.js';
import { creationTime, isBeingRemoved, keyOf, toDate, toTimestamp, type JobChange, type JobRecord } from '../store/job-record.js';
import type { JobStore, ListOptions } from '../store/job-store.js';
import { anotherJob, beingRemoved, idTaken, noSuchJob } from '../store/store-errors.js';
import { confineSpec } from './confine-spec.js';
import { JobFeed } from './job-feed.js';
import { JobRemover } from './job-remover.js';
import { encodeReport, JobRunner, type LeasedJob, type Report } from './job-runner.js';
import { JobTrace } from './job-trace.js';
import { becomes } from './state-change.js';
import type { Tenants } from './tenants.js';

/** How long a plan waits for the configured nodes to answer. */
const NODES_TIMEOUT_MS = 10_000;
/** How long a caller who pauses or cancels a job waits until it has stopped. */
const STOP_TIMEOUT_MS = 20_000;
const EVENTS_AT_ONCE = 500;

export interface JobManagerOptions {
  readonly store: JobStore;
  readonly pool: NodePool;
  readonly resources: Resources;
  readonly recorder: SpanRecorder;
  readonly logger: Logger;
  /** Writes what is done to jobs without a call. */
  readonly audit: AuditActions;
  /** Name of this orchestrator, which no other one of the store has. */
  readonly name: string;
  readonly tenants: Tenants;
  readonly outputs: OutputPlaces;
  /** Jobs this orchestrator runs at once. */
  readonly slots: number;
  readonly leaseMs: number;
  /** How long jobs that have ended are kept unless they say so themselves. */
  readonly keepJobsMs: number;
  /** HOST:PORT at which nodes reach this orchestrator; known once it listens. */
  readonly tensorEndpoint: () => string;
}

/** Which job is watched, and from where on. */
interface WatchedPart {
  /** Any when undefined. */
  readonly jobCreatedAt: Job['createdAt'];
  readonly afterSequence: number;
}

/** Accepts jobs, has them run, and answers what became of them. Every caller sees the jobs of its tenant. */
export class JobManager {
  private readonly feed: JobFeed;
  private readonly runner: JobRunner;
  private readonly traces = new Map<string, JobTrace>();
  private readonly remover: JobRemover;
  private stopping = false;

  constructor(private readonly options: JobManagerOptions) {
    const { store, logger, name, tenants, outputs, slots, leaseMs } = options;
    this.feed = new JobFeed(store, logger);
    this.remover = new JobRemover(options);
    this.runner = new JobRunner({
      store,
      feed: this.feed,
      logger,
      name,
      slots,
      leaseMs,
      tenants,
      outputs,
      keptForMs: (job) => this.keptForMs(job),
      work: (leased) => this.work(leased),
    });
  }

  start(): void {
    this.runner.start();
    this.remover.start();
  }

  /** Accepts a job; the same id and spec again return the same job, and make one that failed or was cancelled go on. */
  async create(caller: Caller, requestedId: string, requested: JobSpec | undefined): Promise<Job> {
    this.refuseWhenStopping();
    if (requested === undefined) throw new SecateurError('INVALID_REQUEST', 'CreateJob needs a spec.');
    const id = requestedId === '' ? randomUUID() : requestedId;
    validateJobId(id);
    const { store, tenants, outputs } = this.options;
    const existing = await store.read(id);
    if (existing !== undefined && !(await this.isWithoutResult(caller, existing, requested)))
      return this.recreate(caller, existing, requested);
    const rules = tenants.of(caller.tenant);
    const spec = await confineSpec(resolveJobSpec(requested), rules.roots, outputs);
    if (spec.priority > rules.maximumPriority) {
      const violation = { field: 'priority', description: `must be at most ${rules.maximumPriority} for tenant ${caller.tenant}` };
      throw new SecateurError('INVALID_REQUEST', `${violation.field} ${violation.description}`, { violations: [violation] });
    }
    const job: Job = {
      id,
      spec,
      state: JobState.QUEUED,
      createdAt: toTimestamp(new Date()),
      finishedAt: undefined,
      finishedLayers: 0,
      layers: 0,
      resumedLayers: 0,
      error: undefined,
      tenant: caller.tenant,
      attempt: 0,
      failedAttempts: 0,
      lostAttempts: 0,
      expiresAt: undefined,
    };
    const inserted = await store.insert(job, requested, rules.unendedJobs);
    if (inserted === undefined) {
      const other = await store.read(id);
      if (other === undefined) throw new SecateurError('UNAVAILABLE', `Job ${id} was deleted just now; create it again.`);
      return this.recreate(caller, other, requested);
    }
    this.runner.wake();
    return inserted.job;
  }

  /** Tells what a job would do with the nodes there are; nothing is written. */
  async plan(caller: Caller, requested: JobSpec | undefined, signal: AbortSignal): Promise<JobPlan> {
    if (requested === undefined) throw new SecateurError('INVALID_REQUEST', 'PlanJob needs a spec.');
    const { tenants, outputs, pool } = this.options;
    const { roots } = tenants.of(caller.tenant);
    const spec = await confineSpec(resolveJobSpec(requested, 'plan'), roots, outputs);
    const wanted = maximumNodesOf(spec);
    const nodes = await pool.settle(Math.min(pool.nodes.length, wanted), NODES_TIMEOUT_MS, signal);
    if (nodes.length === 0) throw new SecateurError('UNAVAILABLE', 'No kernel node can be asked: none is healthy.');
    return outlineJob(spec, nodes.slice(0, wanted), roots, signal);
  }

  async get(caller: Caller, id: string, createdAt?: Job['createdAt']): Promise<Job> {
    return (await this.find(caller, id, createdAt)).job;
  }

  /** Newest first. */
  list(caller: Caller, wanted: Omit<ListOptions, 'tenant'>): Promise<Job[]> {
    return this.options.store.list({ tenant: caller.administrator ? undefined : caller.tenant, ...wanted });
  }

  /** A job as it is now, and its events after a sequence number; undefined where nothing happened for a while. */
  async watch(
    caller: Caller,
    id: string,
    { jobCreatedAt, afterSequence }: WatchedPart,
    signal: AbortSignal,
  ): Promise<{ readonly job: Job; readonly events: AsyncGenerator<JobEvent | undefined, void> }> {
    const record = await this.find(caller, id, jobCreatedAt);
    return { job: record.job, events: this.feed.watch(record, afterSequence, signal) };
  }

  /** Those of the events after a sequence number that there are already, the first of them where they are many. */
  async eventsAfter(caller: Caller, id: string, afterSequence: number): Promise<readonly JobEvent[]> {
    const record = await this.find(caller, id);
    return record.sequence > afterSequence ? this.options.store.events(keyOf(record), afterSequence, EVENTS_AT_ONCE) : [];
  }

  async report(caller: Caller, id: string, createdAt?: Job['createdAt']): Promise<Report> {
    const record = await this.find(caller, id, createdAt);
    const encoded = record.job.state === JobState.SUCCEEDED ? await this.options.store.readReport(keyOf(record)) : undefined;
    const report = encoded && GetReportResponse.decode(encoded).report;
    if (report === undefined) throw new SecateurError('FAILED_PRECONDITION', `Job ${id} has not succeeded, so there is no report.`);
    return report;
  }

  /** The spans recorded for a job, up to now where this orchestrator runs it. */
  async *trace(caller: Caller, id: string): AsyncGenerator<Uint8Array, void> {
    const record = await this.find(caller, id);
    await this.traces.get(id)?.drain(this.options.pool);
    yield* this.options.store.readTrace(keyOf(record));
  }

  async cancel(caller: Caller, id: string): Promise<Job> {
    return this.ask(caller, id, 'cancel', JobState.CANCELLED);
  }

  async pause(caller: Caller, id: string): Promise<Job> {
    const { job } = await this.find(caller, id);
    if (hasEnded(job.state)) throw new SecateurError('FAILED_PRECONDITION', `Job ${id} has ended, so it cannot be paused.`);
    return this.ask(caller, id, 'pause', JobState.PAUSED);
  }

  async resume(caller: Caller, id: string): Promise<Job> {
    this.refuseWhenStopping();
    const { job } = await this.change(caller, id, (record) => {
      const { state } = record.job;
      if (isBeingRemoved(record)) throw beingRemoved(id);
      if (state === JobState.SUCCEEDED)
        throw new SecateurError('FAILED_PRECONDITION', `Job ${id} has succeeded; there is nothing to go on with.`);
      if (state === JobState.QUEUED || isBegun(state)) {
        if (record.wish === 'run') return {};
        throw new SecateurError('FAILED_PRECONDITION', `Job ${id} is being stopped; resume it when it has.`);
      }
      const { unendedJobs: maximumUnended } = this.options.tenants.of(record.job.tenant);
      return { events: [becomes(JobState.QUEUED)], requeue: true, delayMs: 0, maximumUnended };
    });
    this.feed.notify(id);
    this.runner.wake();
    return job;
  }

  /** Forgets a job that has ended and deletes its unfinished output, and the finished one when asked to. */
  async delete(caller: Caller, id: string, deleteOutput: boolean): Promise<void> {
    await this.remover.remove(id, deleteOutput, (record) => requireUse(caller, record));
  }

  /** How many jobs are in each state. */
  counts(): Promise<ReadonlyMap<JobState, number>> {
    return this.options.store.counts();
  }

  /** Stops the jobs that run here, which go back to the queue; what they finished stays on disk for the next attempt. */
  async stop(): Promise<void> {
    this.stopping = true;
    this.remover.stop();
    await this.runner.stop();
    this.feed.stop();
  }

  private keptForMs({ spec }: Job): number {
    return spec?.timeToLiveSeconds ? spec.timeToLiveSeconds * 1000 : this.options.keepJobsMs;
  }

  private refuseWhenStopping(): void {
    if (this.stopping) throw new SecateurError('UNAVAILABLE', 'This orchestrator is shutting down.');
  }

  /** With the time it was created at: that job and no other that has got its id. */
  private async find(caller: Caller, id: string, createdAt?: Job['createdAt']): Promise<JobRecord> {
    const record = await this.options.store.read(id);
    if (record === undefined) throw noSuchJob(id);
    requireUse(caller, record);
    const present = creationTime(record.job);
    if (createdAt !== undefined && toDate(createdAt).getTime() !== present.getTime()) throw anotherJob(id, present);
    return record;
  }

  /** Changes a job that the caller may use; another one may have got its id since it was looked at. */
  private change(caller: Caller, id: string, decide: (record: JobRecord, now: Date) => JobChange): Promise<JobRecord> {
    return this.options.store.change(id, (record, now) => {
      requireUse(caller, record);
      return decide(record, now);
    });
  }

  /** Forgets a job whose output was removed since, so that the same request makes it anew. */
  private async isWithoutResult(caller: Caller, record: JobRecord, requested: JobSpec): Promise<boolean> {
    const { job, requested: before } = record;
    if (job.state !== JobState.SUCCEEDED || isBeingRemoved(record) || job.tenant !== caller.tenant || !sameSpec(before, requested))
      return false;
    const { kind } = job.spec ?? {};
    if (kind?.$case !== 'prune' || (await this.options.outputs.at(kind.value.output).isTaken())) return false;
    await this.options.store.remove(keyOf(record));
    return true;
  }

  private async recreate(caller: Caller, { job, requested: before }: JobRecord, requested: JobSpec): Promise<Job> {
    const { id, tenant, state } = job;
    if (tenant !== caller.tenant) throw idTaken(id);
    if (!sameSpec(before, requested)) {
      throw new SecateurError('ALREADY_EXISTS', `Job ${id} exists with another spec; choose another id.`);
    }
    return state === JobState.FAILED || state === JobState.CANCELLED ? this.resume(caller, id) : job;
  }

  /** Makes a job stop: at once where nobody runs it, or by whoever does. */
  private async ask(caller: Caller, id: string, wish: 'pause' | 'cancel', state: JobState): Promise<Job> {
    const record = await this.change(caller, id, ({ job: present, lease }, now) => {
      if (hasEnded(present.state) || present.state === state) return {};
      if (lease !== undefined && lease.expiresAt > now) return { wish };
      return { events: [becomes(state)], wish: 'run', lease: 'end', keptForMs: this.keptForMs(present) };
    });
    this.feed.notify(id);
    this.runner.wake();
    if (hasEnded(record.job.state) || record.job.state === state) return record.job;
    return this.waitUntilStopped(caller, record);
  }

  /** The job when it has stopped, or as it is when that takes too long. */
  private async waitUntilStopped(caller: Caller, record: JobRecord): Promise<Job> {
    const signal = AbortSignal.timeout(STOP_TIMEOUT_MS);
    try {
      for await (const event of this.feed.watch(record, record.sequence, signal)) {
        const state = event?.event?.$case === 'stateChanged' ? event.event.value.state : undefined;
        if (state === JobState.PAUSED) break;
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    return this.get(caller, record.job.id);
  }

  private async work(leased: LeasedJob): Promise<Report> {
    const { id, job, lease, log } = leased;
    const { spec } = job;
    const { store, recorder, logger, pool, resources, tensorEndpoint, tenants, outputs } = this.options;
    const trace = new JobTrace(lease, spec?.recordTrace === true, recorder, store, logger);
    this.traces.set(id, trace);
    const run: JobRun = {
      jobId: id,
      maximumNodes: maximumNodesOf(spec),
      recordTrace: spec?.recordTrace === true,
      pool,
      resources,
      tensorEndpoint: tensorEndpoint(),
      roots: tenants.of(job.tenant).roots,
      outputs,
      log,
      toldLayers: job.finishedLayers,
      lease,
      trace,
      signal: lease.signal,
      saveReport: async (report) => {
        await log.commit({ report: encodeReport(report) });
      },
    };
    try {
      const attributes = { [Attribute.JOB_ID]: id, [Attribute.TRACE_RECORD]: run.recordTrace };
      return await withSpan(SpanName.JOB, { root: true, attributes }, (span) => {
        trace.add(span.spanContext().traceId);
        return runSpec(run, spec);
      });
    } finally {
      await trace.drain(pool);
      this.traces.delete(id);
    }
  }
}

/** That a job of another tenant is there is nobody's business. */
function requireUse(caller: Caller, { job }: JobRecord): void {
  if (!caller.administrator && job.tenant !== caller.tenant) throw noSuchJob(job.id);
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

function maximumNodesOf(spec: JobSpec | undefined): number {
  return spec?.maximumNodes || Number.POSITIVE_INFINITY;
}

function sameSpec(left: JobSpec, right: JobSpec): boolean {
  return Buffer.from(JobSpec.encode(left).finish()).equals(JobSpec.encode(right).finish());
}

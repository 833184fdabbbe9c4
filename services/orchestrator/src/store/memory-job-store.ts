import { hasEnded, isBegun } from '@secateur/core';
import { JobState, type Job, type JobEvent, type JobSpec } from '@secateur/proto/job';
import {
  activeOutput,
  applyChange,
  creationTime,
  pendingLayers,
  requireLease,
  roomToGoOn,
  toDate,
  type JobChange,
  type JobKey,
  type JobRecord,
} from './job-record.js';
import type { HeldJob, JobStore, ListOptions, ListPosition, RunningLimits } from './job-store.js';
import { leaseLost, noSuchJob, notEnded, outputTaken, tooManyJobs } from './store-errors.js';

/** Ended jobs beyond this number are forgotten, the oldest first. */
const MAXIMUM_JOBS = 10_000;

interface StoredJob {
  record: JobRecord;
  readonly events: JobEvent[];
  readonly trace: Uint8Array[];
  report: Uint8Array | undefined;
  position: number;
  readyAt: Date;
}

/** Keeps jobs as long as the process lives: for a single orchestrator that is started for one job. */
export class MemoryJobStore implements JobStore {
  private readonly jobs = new Map<string, StoredJob>();
  private lastPosition = 0;
  private lastNumber = 0;
  private lastToken = 0;

  insert(job: Job, requested: JobSpec, maximumUnended: number): Promise<JobRecord | undefined> {
    return attempt(() => {
      if (this.jobs.has(job.id)) return undefined;
      const record: JobRecord = { job, number: ++this.lastNumber, requested, sequence: 0, wish: 'run', lease: undefined, hasReport: false };
      this.refuseTakenOutput(record);
      this.requireRoom(job.tenant, maximumUnended);
      const stored = { record, events: [], trace: [], report: undefined, position: ++this.lastPosition, readyAt: new Date(0) };
      this.jobs.set(job.id, stored);
      this.forgetOldest();
      return record;
    });
  }

  read(id: string): Promise<JobRecord | undefined> {
    return Promise.resolve(this.jobs.get(id)?.record);
  }

  readReport(job: JobKey): Promise<Uint8Array | undefined> {
    return Promise.resolve(this.findIfThere(job)?.report);
  }

  list({ tenant, states, before, limit }: ListOptions): Promise<Job[]> {
    const found = [...this.jobs.values()]
      .map(({ record: { job } }) => ({ job, createdAt: creationTime(job), id: job.id }))
      .filter(({ job }) => (tenant === undefined || job.tenant === tenant) && (states.length === 0 || states.includes(job.state)))
      .filter((position) => before === undefined || compareAge(position, before) > 0)
      .sort(compareAge)
      .slice(0, limit);
    return Promise.resolve(found.map(({ job }) => job));
  }

  change(id: string, decide: (record: JobRecord, now: Date) => JobChange): Promise<JobRecord> {
    return attempt(() => {
      const stored = this.find(id);
      const now = new Date();
      const change = decide(stored.record, now);
      const { record, events } = applyChange(stored.record, change, now);
      const room = roomToGoOn(stored.record, record, change);
      if (room !== undefined) this.requireRoom(record.job.tenant, room);
      this.refuseTakenOutput(record);
      stored.record = record;
      stored.events.push(...events);
      stored.report = change.report ?? stored.report;
      if (change.requeue === true) stored.position = ++this.lastPosition;
      if (change.delayMs !== undefined) stored.readyAt = new Date(now.getTime() + change.delayMs);
      return record;
    });
  }

  acquire(owner: string, leaseMs: number, limits: RunningLimits): Promise<JobRecord | undefined> {
    const now = new Date();
    const running = new Map<string, number>();
    for (const { record } of this.jobs.values()) {
      const { tenant } = record.job;
      if (isLeased(record, now)) running.set(tenant, (running.get(tenant) ?? 0) + 1);
    }
    const runningOf = ({ record }: StoredJob): number => running.get(record.job.tenant) ?? 0;
    const [next] = [...this.jobs.values()]
      .filter(({ record, readyAt }) => isRunnable(record, now) && readyAt <= now)
      .filter((stored) => runningOf(stored) < (limits.tenants[stored.record.job.tenant] ?? limits.others))
      .sort((a, b) => priorityOf(b) - priorityOf(a) || runningOf(a) - runningOf(b) || a.position - b.position);
    if (next !== undefined) {
      next.record = { ...next.record, lease: { owner, token: ++this.lastToken, expiresAt: new Date(now.getTime() + leaseMs) } };
    }
    return Promise.resolve(next?.record);
  }

  held(owner: string): Promise<HeldJob[]> {
    const leased = [...this.jobs.values()].flatMap(({ record: { job, lease, wish } }) =>
      lease?.owner === owner ? [{ id: job.id, token: lease.token, wish }] : [],
    );
    return Promise.resolve(leased);
  }

  events(job: JobKey, after: number, limit: number): Promise<JobEvent[]> {
    return attempt(() => this.findThat(job).events.slice(after, after + limit));
  }

  sequences(jobs: readonly JobKey[]): Promise<Map<number, number>> {
    const known = jobs.flatMap((job) => {
      const stored = this.findIfThere(job);
      return stored === undefined ? [] : [[job.number, stored.record.sequence] as const];
    });
    return Promise.resolve(new Map(known));
  }

  addTrace(id: string, token: number, chunk: Uint8Array): Promise<void> {
    return attempt(() => {
      const stored = this.jobs.get(id);
      if (stored === undefined) throw leaseLost(id);
      requireLease(stored.record, token, new Date());
      stored.trace.push(chunk);
    });
  }

  async *readTrace(job: JobKey): AsyncGenerator<Uint8Array, void> {
    yield* this.findIfThere(job)?.trace ?? [];
  }

  remove(job: JobKey): Promise<JobRecord> {
    return attempt(() => {
      const { record } = this.findThat(job);
      if (!hasEnded(record.job.state)) throw notEnded(job.id);
      this.jobs.delete(job.id);
      return record;
    });
  }

  expired(limit: number): Promise<JobRecord[]> {
    const now = new Date();
    const over = [...this.jobs.values()]
      .map(({ record }) => record)
      .filter(({ job: { expiresAt } }) => expiresAt !== undefined && toDate(expiresAt) <= now);
    return Promise.resolve(over.slice(0, limit));
  }

  isBeingWritten(output: string): Promise<boolean> {
    return Promise.resolve([...this.jobs.values()].some(({ record }) => activeOutput(record) === output));
  }

  counts(): Promise<ReadonlyMap<JobState, number>> {
    const counts = new Map<JobState, number>();
    for (const { record } of this.jobs.values()) counts.set(record.job.state, (counts.get(record.job.state) ?? 0) + 1);
    return Promise.resolve(counts);
  }

  pendingLayers(): Promise<number> {
    return Promise.resolve([...this.jobs.values()].reduce((sum, { record }) => sum + pendingLayers(record.job), 0));
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  private find(id: string): StoredJob {
    const stored = this.jobs.get(id);
    if (stored === undefined) throw noSuchJob(id);
    return stored;
  }

  private findThat(job: JobKey): StoredJob {
    const stored = this.findIfThere(job);
    if (stored === undefined) throw noSuchJob(job.id);
    return stored;
  }

  private findIfThere({ id, number }: JobKey): StoredJob | undefined {
    const stored = this.jobs.get(id);
    return stored?.record.number === number ? stored : undefined;
  }

  private requireRoom(tenant: string, maximumUnended: number): void {
    const unended = [...this.jobs.values()].filter(({ record: { job } }) => job.tenant === tenant && !hasEnded(job.state));
    if (unended.length >= maximumUnended) throw tooManyJobs(tenant, maximumUnended);
  }

  private refuseTakenOutput(record: JobRecord): void {
    const output = activeOutput(record);
    if (output === undefined) return;
    for (const [id, other] of this.jobs) {
      if (id !== record.job.id && activeOutput(other.record) === output) throw outputTaken(output);
    }
  }

  private forgetOldest(): void {
    for (const [id, { record }] of this.jobs) {
      if (this.jobs.size <= MAXIMUM_JOBS) return;
      if (hasEnded(record.job.state)) this.jobs.delete(id);
    }
  }
}

/** Above 0 when the first is older. */
function compareAge(left: ListPosition, right: ListPosition): number {
  return right.createdAt.getTime() - left.createdAt.getTime() || (left.id === right.id ? 0 : left.id < right.id ? 1 : -1);
}

function isLeased({ lease }: JobRecord, now: Date): boolean {
  return lease !== undefined && lease.expiresAt > now;
}

function isRunnable(record: JobRecord, now: Date): boolean {
  const { state } = record.job;
  return (state === JobState.QUEUED || isBegun(state)) && !isLeased(record, now);
}

function priorityOf({ record }: StoredJob): number {
  return record.job.spec?.priority ?? 0;
}

/** A promise of what a synchronous function returns or throws. */
function attempt<Result>(compute: () => Result): Promise<Result> {
  return new Promise((resolve) => {
    resolve(compute());
  });
}

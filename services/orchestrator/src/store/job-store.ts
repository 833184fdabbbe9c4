import type { Job, JobEvent, JobSpec, JobState } from '@secateur/proto/job';
import type { JobChange, JobKey, JobRecord, Wish } from './job-record.js';

/** How many jobs of each tenant may run at once, over all orchestrators. */
export interface RunningLimits {
  readonly others: number;
  readonly tenants: Readonly<Record<string, number>>;
}

/** Where a job stands among all: by the time it was created at, then by its id. */
export interface ListPosition {
  readonly createdAt: Date;
  readonly id: string;
}

export interface ListOptions {
  /** Only jobs of this tenant; of all when undefined. */
  readonly tenant: string | undefined;
  /** Only jobs in these states; in any when empty. */
  readonly states: readonly JobState[];
  /** Only jobs that were created before the job that stands, or stood, there. */
  readonly before: ListPosition | undefined;
  readonly limit: number;
}

/** A job that is held by an orchestrator, as it asks for it again and again. */
export interface HeldJob {
  readonly id: string;
  readonly token: number;
  readonly wish: Wish;
}

/**
 * Where jobs, their events and their leases are kept. Every method is one transaction; the store's clock alone decides when a lease is
 * over. Throws UNAVAILABLE when the store cannot be reached, and then has done nothing or all of it.
 */
export interface JobStore {
  /**
   * Adds a job. Undefined when the id is taken. ALREADY_EXISTS when another job that has not ended writes to its output,
   * RESOURCE_EXHAUSTED when its tenant has `maximumUnended` jobs that have not ended.
   */
  insert(job: Job, requested: JobSpec, maximumUnended: number): Promise<JobRecord | undefined>;

  read(id: string): Promise<JobRecord | undefined>;

  /** Encoded GetReportResponse. */
  readReport(job: JobKey): Promise<Uint8Array | undefined>;

  /** Newest first. */
  list(options: ListOptions): Promise<Job[]>;

  /**
   * Changes a job as it is when nobody else changes it; what `decide` throws is thrown and changes nothing. NOT_FOUND when there is no such
   * job, ALREADY_EXISTS and, for a job that had ended and goes on, RESOURCE_EXHAUSTED as `insert`. `decide` is given the store's time.
   */
  change(id: string, decide: (record: JobRecord, now: Date) => JobChange): Promise<JobRecord>;

  /**
   * Leases the next job: of those that wait or whose lease is over, and whose tenant runs fewer than it may, the one with the highest
   * priority, then of the tenant that runs least, then the one that waits longest. Undefined when there is none.
   */
  acquire(owner: string, leaseMs: number, limits: RunningLimits): Promise<JobRecord | undefined>;

  /** The jobs that an orchestrator has leased, whether or not the leases are over. */
  held(owner: string): Promise<HeldJob[]>;

  /** At most `limit` events after a sequence number, in order. NOT_FOUND when there is no such job, or its id is another one's by now. */
  events(job: JobKey, after: number, limit: number): Promise<JobEvent[]>;

  /** Sequence number of the last event of each of these jobs that is there, by the number of the job. */
  sequences(jobs: readonly JobKey[]): Promise<Map<number, number>>;

  /** Adds recorded spans to a job: an OTLP/JSON ExportTraceServiceRequest. LEASE_LOST unless the lease with that token is its present one and not over. */
  addTrace(id: string, token: number, chunk: Uint8Array): Promise<void>;

  /** The recorded spans of a job, in the order they were added; none when it is not there any more. */
  readTrace(job: JobKey): AsyncIterable<Uint8Array>;

  /** Removes a job that has ended, with its events, report and spans. FAILED_PRECONDITION when it has not ended, NOT_FOUND without it. */
  remove(job: JobKey): Promise<JobRecord>;

  /** Jobs whose time to live is over, the oldest first. */
  expired(limit: number): Promise<JobRecord[]>;

  /** Whether a job that has not ended writes to that folder. */
  isBeingWritten(output: string): Promise<boolean>;

  /** How many jobs are in each state. */
  counts(): Promise<ReadonlyMap<Job['state'], number>>;

  /** How many blocks are left to do of all jobs together. */
  pendingLayers(): Promise<number>;

  close(): Promise<void>;
}

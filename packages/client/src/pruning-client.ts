import { rename, rm, writeFile } from 'node:fs/promises';
import { evaluateReportToJson, pruneReportToJson, SecateurError } from '@secateur/core';
import type { Job, JobEvent, JobSpec, JobState } from '@secateur/proto/job';
import type { JobPlan } from '@secateur/proto/plan';
import { PruningServiceDefinition, type GetReportResponse, type Node } from '@secateur/proto/pruning_service';
import { connect, type Channel, type ConnectOptions, type DeepPartial, type ServiceClient } from '@secateur/rpc';
import { Absence } from './absence.js';

const CALL_TIMEOUT_MS = 30_000;
/** Jobs that are asked for at once. */
const PAGE_SIZE = 100;
/** Long texts take their time to be read as tokens. */
const PLAN_TIMEOUT_MS = 600_000;
const TRACE_TIMEOUT_MS = 600_000;
/** Watching begins anew after this time, as after a broken connection. */
const WATCH_TIMEOUT_MS = 3_600_000;
/** A watch that brings nothing for so long, not even a heartbeat, is broken. */
const WATCH_IDLE_TIMEOUT_MS = 45_000;
/** How long a watcher waits for a service that went away. */
const DEFAULT_RECONNECT_TIMEOUT_MS = 60_000;

/** How to be safe on the way (`tls`, made by `TlsCredentials.load`) and known there (`token`, or what reads the present one before every call). */
export type PruningClientOptions = Pick<ConnectOptions, 'tls' | 'token'>;

/** What every call takes. */
export interface RequestOptions {
  /** Aborting fails the call with CANCELLED. The job itself goes on. */
  readonly signal?: AbortSignal;
}

/** Which job of an id is meant. */
export interface SameJobOptions extends RequestOptions {
  /**
   * Only the job that was accepted then, as its `createdAt` says: NOT_FOUND where it was deleted and another one has got its id since, which a
   * service of an earlier version does not notice. Defaults to any.
   */
  readonly jobCreatedAt?: Job['createdAt'];
}

/** A job to be created. */
export interface NewJob {
  /** 1-63 letters, digits, `-` or `_`; made by the service when empty or absent. */
  readonly jobId?: string;
  /** What to do. Fields that are left out have the defaults of the service; the job that is answered has all of them. */
  readonly spec: DeepPartial<JobSpec>;
}

/** Which jobs are listed. */
export interface ListJobsOptions extends RequestOptions {
  /** Only jobs in these states. Defaults to none: in any. */
  readonly states?: readonly JobState[];
  /** Only so many, the newest. Defaults to all. */
  readonly limit?: number;
}

/** From where on, and how patiently, a job is watched. */
export interface WatchJobOptions extends SameJobOptions {
  /** Only events after this sequence number, such as that of the last event another process has seen. Defaults to 0: all. */
  readonly afterSequence?: number;
  /** How long the service may fail to answer before the error is thrown; every answer, an event or a heartbeat, begins it anew. Defaults to 60 s. */
  readonly reconnectTimeoutMs?: number;
}

/** What is deleted with a job. */
export interface DeleteJobOptions extends RequestOptions {
  /** Whether the output of a job that has succeeded is deleted too; unfinished output always is. Defaults to false. */
  readonly deleteOutput?: boolean;
}

/**
 * Client of a pruning service. Every failure is a SecateurError whose `reason` says what to do. Beside what its method names, every call can
 * fail with
 *
 * - UNAVAILABLE and DEADLINE_EXCEEDED: it may be repeated, with pauses that grow;
 * - RESOURCE_EXHAUSTED with `callsPerSecond` in its metadata: the caller calls too often, and may repeat it after a second;
 * - CANCELLED: its signal aborted;
 * - UNAUTHENTICATED and PERMISSION_DENIED, where the service asks who calls or cannot be trusted, and INVALID_REQUEST when the token cannot be sent;
 * - INTERNAL, which is a defect of ours.
 *
 * Jobs of other tenants are NOT_FOUND.
 *
 * ```ts
 * const client = PruningClient.connect('127.0.0.1:7400');
 * const prune = { model: '/models/dense', output: '/models/pruned', sparsity: 0.7, calibration: { path: '/data/text.jsonl' } };
 * const { id } = await client.createJob({ spec: { kind: { $case: 'prune', value: prune } } });
 * const job = await client.waitForJob(id);
 * const { report } = await client.getReport(id);
 * client.close();
 * ```
 */
export class PruningClient {
  private readonly service: ServiceClient<PruningServiceDefinition>;

  private constructor(private readonly channel: Channel) {
    this.service = channel.client(PruningServiceDefinition);
  }

  /**
   * A client of the service at HOST:PORT. The connection is made by the first call. INVALID_REQUEST when that is no address, or the token would go
   * to another machine in the clear.
   */
  static connect(address: string, options: PruningClientOptions = {}): PruningClient {
    return new PruningClient(connect(address, { kind: 'control', ...options }));
  }

  /** Resolves once the service is reached; UNAVAILABLE when that takes longer, UNAUTHENTICATED when its certificate is not to be trusted. */
  waitForReady(timeoutMs: number, { signal }: RequestOptions = {}): Promise<void> {
    return this.channel.waitForReady(timeoutMs, signal);
  }

  /**
   * What a job would do and the memory it would take on every node; reads no weights and writes nothing. Neither an output nor calibration data
   * needs to be named.
   *
   * INVALID_REQUEST with field violations when the spec is wrong, PATH_NOT_ALLOWED when a path lies outside the roots of the tenant,
   * ALREADY_EXISTS when the output does, NOT_FOUND when the model or a file of data does not, INVALID_CHECKPOINT, UNSUPPORTED_MODEL or
   * INVALID_DATA when they are of no use, FAILED_PRECONDITION when they cannot be read, RESOURCE_EXHAUSTED when the spec is above 4 MiB,
   * UNAVAILABLE when no node can be asked.
   */
  async planJob(spec: DeepPartial<JobSpec>, options: RequestOptions = {}): Promise<JobPlan> {
    const { plan } = await this.service.planJob({ spec }, { timeoutMs: PLAN_TIMEOUT_MS, ...options });
    return required(plan, 'PlanJob');
  }

  /**
   * Starts a job. The id and spec of an existing job give that job, which goes on if it had failed or was cancelled, and begins anew if its
   * output was removed after it had succeeded. The model and the data are read when the job runs: what is wrong with them is its `error`.
   *
   * INVALID_REQUEST with field violations when the id or the spec is wrong, or the priority is higher than the tenant may ask for,
   * PATH_NOT_ALLOWED when a path lies outside the roots of the tenant, ALREADY_EXISTS when the id belongs to a job with another spec or of
   * another tenant, the output exists, or another job that has not ended writes to it, RESOURCE_EXHAUSTED when the tenant has as many jobs that
   * have not ended as it may, or the spec is above 4 MiB, FAILED_PRECONDITION when the place of a path or of the output cannot be looked at.
   */
  async createJob(newJob: NewJob, options: RequestOptions = {}): Promise<Job> {
    const { job } = await this.service.createJob(newJob, { timeoutMs: CALL_TIMEOUT_MS, ...options });
    return required(job, 'CreateJob');
  }

  /** A job as it is now; NOT_FOUND when there is none with that id. */
  async getJob(jobId: string, { jobCreatedAt, ...options }: SameJobOptions = {}): Promise<Job> {
    const { job } = await this.service.getJob({ jobId, jobCreatedAt }, { timeoutMs: CALL_TIMEOUT_MS, ...options });
    return required(job, 'GetJob');
  }

  /**
   * The jobs of the caller's tenant, or of all where the caller is an administrator, newest first, read page by page. Jobs that are created or
   * deleted meanwhile neither hide nor repeat others. Fails only as every call may.
   */
  async *listJobs({ states = [], limit = Infinity, ...options }: ListJobsOptions = {}): AsyncGenerator<Job, void, undefined> {
    let left = limit;
    let pageToken = '';
    do {
      if (left <= 0) return;
      const request = { states: [...states], pageToken, pageSize: Math.min(left, PAGE_SIZE) };
      const page = await this.service.listJobs(request, { timeoutMs: CALL_TIMEOUT_MS, ...options });
      // A service of an earlier version knows of no states.
      const wanted = states.length === 0 ? page.jobs : page.jobs.filter(({ state }) => states.includes(state));
      yield* wanted.slice(0, left);
      left -= wanted.length;
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
  }

  /**
   * The events of a job in order, without gaps or repetitions, until the job ends. After a broken connection, a restart of the service, or
   * where it has no answer for now, it goes on after the last event, with pauses that grow. NOT_FOUND when there is no job with that id, or it was
   * deleted meanwhile, even where another one has got its id; UNAVAILABLE or DEADLINE_EXCEEDED when the service has not answered for
   * `reconnectTimeoutMs`.
   */
  async *watchJob(jobId: string, options: WatchJobOptions = {}): AsyncGenerator<JobEvent, void, undefined> {
    yield* this.followJob(jobId, options);
  }

  /** The job as it is when it has ended, well or not: its `state` says which, its `error` why. Waits for the service and fails as `watchJob` does. */
  async waitForJob(jobId: string, options: WatchJobOptions = {}): Promise<Job> {
    const events = this.followJob(jobId, options);
    let result = await events.next();
    while (result.done !== true) result = await events.next();
    const jobCreatedAt = result.value;
    const { reconnectTimeoutMs = DEFAULT_RECONNECT_TIMEOUT_MS, signal } = options;
    const absence = new Absence(this.channel, reconnectTimeoutMs, signal);
    for (;;) {
      try {
        return await this.getJob(jobId, { jobCreatedAt, ...(signal && { signal }) });
      } catch (error) {
        await absence.endure(error);
      }
    }
  }

  /**
   * Stops a job and answers when it has stopped, or as it is after 20 s; one that has ended stays as it is. NOT_FOUND when there is none with that
   * id.
   */
  async cancelJob(jobId: string, options: RequestOptions = {}): Promise<Job> {
    const { job } = await this.service.cancelJob({ jobId }, { timeoutMs: CALL_TIMEOUT_MS, ...options });
    return required(job, 'CancelJob');
  }

  /**
   * Sets a job aside until it is resumed, and answers when it has stopped, or as it is after 20 s. FAILED_PRECONDITION when it has ended, NOT_FOUND
   * when there is none with that id.
   */
  async pauseJob(jobId: string, options: RequestOptions = {}): Promise<Job> {
    const { job } = await this.service.pauseJob({ jobId }, { timeoutMs: CALL_TIMEOUT_MS, ...options });
    return required(job, 'PauseJob');
  }

  /**
   * Makes a paused, failed or cancelled job go on after its last finished block; one that waits or runs stays as it is. FAILED_PRECONDITION when
   * it has succeeded or is just being stopped or deleted, ALREADY_EXISTS when another job that has not ended writes to its output by now,
   * RESOURCE_EXHAUSTED when it had ended and the tenant has as many jobs that have not ended as it may, NOT_FOUND when there is none with that id.
   */
  async resumeJob(jobId: string, options: RequestOptions = {}): Promise<Job> {
    const { job } = await this.service.resumeJob({ jobId }, { timeoutMs: CALL_TIMEOUT_MS, ...options });
    return required(job, 'ResumeJob');
  }

  /**
   * Forgets a job that has ended, after its unfinished output is deleted, unless that belongs to another job or lies outside the roots of the
   * tenant by now. FAILED_PRECONDITION when it has not ended, is just being deleted, or its output cannot be looked at, NOT_FOUND when there is none
   * with that id. Where the output cannot be deleted the job stays, and may be deleted again.
   */
  async deleteJob(jobId: string, { deleteOutput = false, ...options }: DeleteJobOptions = {}): Promise<void> {
    await this.service.deleteJob({ jobId, deleteOutput }, { timeoutMs: CALL_TIMEOUT_MS, ...options });
  }

  /** What a job found; FAILED_PRECONDITION before it has succeeded, NOT_FOUND when there is none with that id. */
  getReport(jobId: string, { jobCreatedAt, ...options }: SameJobOptions = {}): Promise<GetReportResponse> {
    return this.service.getReport({ jobId, jobCreatedAt }, { timeoutMs: CALL_TIMEOUT_MS, ...options });
  }

  /**
   * Writes what a job found to a file, as JSON: of a prune job the content of its `secateur.json`. A file that is there is replaced, whole or
   * not at all. FAILED_PRECONDITION before the job has succeeded, and when the file cannot be written; NOT_FOUND when there is none with that id.
   */
  async downloadReport(jobId: string, path: string, options: SameJobOptions = {}): Promise<void> {
    const { report } = await this.getReport(jobId, options);
    const { $case, value } = required(report, 'GetReport');
    const json = $case === 'prune' ? pruneReportToJson(value) : evaluateReportToJson(value);
    const partial = `${path}.partial`;
    try {
      await writeFile(partial, `${JSON.stringify(json, undefined, 2)}\n`);
      await rename(partial, path);
    } catch (cause) {
      await rm(partial, { force: true });
      throw new SecateurError('FAILED_PRECONDITION', `The report cannot be written to ${path}: ${String(cause)}`, { cause });
    }
  }

  /**
   * The spans recorded for a job, none unless its spec has `recordTrace`: OTLP/JSON ExportTraceServiceRequests. NOT_FOUND when there is no job with
   * that id.
   */
  async *getTrace(jobId: string, options: RequestOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const { otlpJson } of this.service.getTrace({ jobId }, { timeoutMs: TRACE_TIMEOUT_MS, ...options })) yield otlpJson;
  }

  /** The kernel nodes and their health. Fails only as every call may. */
  async listNodes(options: RequestOptions = {}): Promise<readonly Node[]> {
    const { nodes } = await this.service.listNodes({}, { timeoutMs: CALL_TIMEOUT_MS, ...options });
    return nodes;
  }

  /** Closes the connection; running calls are finished, and further ones are UNAVAILABLE. */
  close(): void {
    this.channel.close();
  }

  /** As `watchJob`; in the end the time the job was created at, where it was told. */
  private async *followJob(
    jobId: string,
    { afterSequence = 0, reconnectTimeoutMs = DEFAULT_RECONNECT_TIMEOUT_MS, jobCreatedAt, ...options }: WatchJobOptions,
  ): AsyncGenerator<JobEvent, Job['createdAt'], undefined> {
    let sequence = afterSequence;
    let createdAt = jobCreatedAt;
    const absence = new Absence(this.channel, reconnectTimeoutMs, options.signal);
    for (;;) {
      try {
        const answers = this.service.watchJob(
          { jobId, jobCreatedAt: createdAt, afterSequence: sequence },
          { timeoutMs: WATCH_TIMEOUT_MS, idleTimeoutMs: WATCH_IDLE_TIMEOUT_MS, ...options },
        );
        for await (const answer of answers) {
          absence.end();
          createdAt ??= answer.jobCreatedAt;
          const { event } = answer;
          if (event === undefined) continue;
          sequence = event.sequence;
          yield event;
        }
        return createdAt;
      } catch (error) {
        await absence.endure(error);
      }
    }
  }
}

function required<Part>(part: Part | undefined, method: string): Part {
  if (part === undefined) throw new SecateurError('INTERNAL', `${method} answered without content; the service may be of another version.`);
  return part;
}

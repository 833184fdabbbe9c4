import { rename, rm, writeFile } from 'node:fs/promises';
import { evaluateReportToJson, pruneReportToJson, SecateurError } from '@secateur/core';
import type { Job, JobEvent, JobSpec } from '@secateur/proto/job';
import type { JobPlan } from '@secateur/proto/plan';
import { PruningServiceDefinition, type GetReportResponse, type Node } from '@secateur/proto/pruning_service';
import { connect, type Channel, type ConnectOptions, type DeepPartial, type ServiceClient } from '@secateur/rpc';

const CALL_TIMEOUT_MS = 30_000;
/** Long texts take their time to be read as tokens. */
const PLAN_TIMEOUT_MS = 600_000;
const TRACE_TIMEOUT_MS = 600_000;
/** Watching begins anew after this time, as after a broken connection. */
const WATCH_TIMEOUT_MS = 3_600_000;
/** A watch that brings nothing for so long, not even a heartbeat, is broken. */
const WATCH_IDLE_TIMEOUT_MS = 45_000;
/** How long a watcher waits for a service that went away. */
const DEFAULT_RECONNECT_TIMEOUT_MS = 60_000;

/** How to be safe on the way and known there. */
export type PruningClientOptions = Pick<ConnectOptions, 'tls' | 'token'>;

export interface RequestOptions {
  /** Aborting fails the call with CANCELLED. The job itself goes on. */
  readonly signal?: AbortSignal;
}

export interface NewJob {
  /** 1-63 letters, digits, `-` or `_`; made by the service when empty or absent. */
  readonly jobId?: string;
  readonly spec: DeepPartial<JobSpec>;
}

export interface WatchJobOptions extends RequestOptions {
  /** Only events after this one. Defaults to 0: all. */
  readonly afterSequence?: number;
  /** How long to wait for a service that went away before the error is thrown. Defaults to 60 s. */
  readonly reconnectTimeoutMs?: number;
}

export interface DeleteJobOptions extends RequestOptions {
  /** Whether the finished output is deleted too. Defaults to false. */
  readonly deleteOutput?: boolean;
}

/**
 * Client of a pruning service. Every failure is a SecateurError whose `reason` says what to do. Beside what its method names, every call can
 * fail with UNAVAILABLE and DEADLINE_EXCEEDED, after which it may be repeated, with CANCELLED when its signal aborted, with UNAUTHENTICATED
 * and PERMISSION_DENIED where the service asks who calls, and with INTERNAL, which is a defect of ours.
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

  /** A client of the service at HOST:PORT. The connection is made by the first call. `tls` is made by TlsCredentials.load. INVALID_REQUEST when that is no address. */
  static connect(address: string, options: PruningClientOptions = {}): PruningClient {
    return new PruningClient(connect(address, { kind: 'control', ...options }));
  }

  /** Resolves once the service is reached; UNAVAILABLE when that takes longer, CANCELLED when the signal aborts. */
  waitForReady(timeoutMs: number, { signal }: RequestOptions = {}): Promise<void> {
    return this.channel.waitForReady(timeoutMs, signal);
  }

  /**
   * What a job would do and the memory it would take on every node; reads no weights and writes nothing. No output needs to be named.
   * INVALID_REQUEST with field violations when the spec is wrong, UNAVAILABLE when no node can be asked.
   */
  async planJob(spec: DeepPartial<JobSpec>, options: RequestOptions = {}): Promise<JobPlan> {
    const { plan } = await this.service.planJob({ spec }, { timeoutMs: PLAN_TIMEOUT_MS, ...options });
    return required(plan, 'PlanJob');
  }

  /**
   * Starts a job. The id and spec of an existing job give that job, which goes on if it had failed or was cancelled.
   * ALREADY_EXISTS when the id belongs to a job with another spec or of another tenant, INVALID_REQUEST with field violations when the
   * spec is wrong.
   */
  async createJob(newJob: NewJob, options: RequestOptions = {}): Promise<Job> {
    const { job } = await this.service.createJob(newJob, { timeoutMs: CALL_TIMEOUT_MS, ...options });
    return required(job, 'CreateJob');
  }

  /** Reads a job; NOT_FOUND when there is none with that id. */
  async getJob(jobId: string, options: RequestOptions = {}): Promise<Job> {
    const { job } = await this.service.getJob({ jobId }, { timeoutMs: CALL_TIMEOUT_MS, ...options });
    return required(job, 'GetJob');
  }

  /** All jobs, newest first, read page by page. */
  async *listJobs(options: RequestOptions = {}): AsyncGenerator<Job, void, undefined> {
    let pageToken = '';
    do {
      const page = await this.service.listJobs({ pageToken }, { timeoutMs: CALL_TIMEOUT_MS, ...options });
      yield* page.jobs;
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
  }

  /**
   * The events of a job in order, without gaps or repetitions, until the job ends. After a broken connection, or a restart of the
   * service, it goes on after the last event. NOT_FOUND when there is no job with that id, UNAVAILABLE when the service stays away.
   */
  async *watchJob(
    jobId: string,
    { afterSequence = 0, reconnectTimeoutMs = DEFAULT_RECONNECT_TIMEOUT_MS, ...options }: WatchJobOptions = {},
  ): AsyncGenerator<JobEvent, void, undefined> {
    let sequence = afterSequence;
    for (;;) {
      try {
        const answers = this.service.watchJob(
          { jobId, afterSequence: sequence },
          { timeoutMs: WATCH_TIMEOUT_MS, idleTimeoutMs: WATCH_IDLE_TIMEOUT_MS, ...options },
        );
        for await (const { event } of answers) {
          if (event === undefined) continue;
          sequence = event.sequence;
          yield event;
        }
        return;
      } catch (error) {
        if (!(error instanceof SecateurError && (error.reason === 'UNAVAILABLE' || error.reason === 'DEADLINE_EXCEEDED'))) throw error;
        await this.channel.waitForReady(reconnectTimeoutMs, options.signal);
      }
    }
  }

  /** The job as it is when it has ended, well or not: its `state` says which, its `error` why. NOT_FOUND, UNAVAILABLE as of `watchJob`. */
  async waitForJob(jobId: string, options: WatchJobOptions = {}): Promise<Job> {
    const events = this.watchJob(jobId, options);
    while ((await events.next()).done !== true);
    return this.getJob(jobId, options.signal === undefined ? {} : { signal: options.signal });
  }

  /** Stops a job; one that has ended stays as it is. NOT_FOUND when there is none with that id. */
  async cancelJob(jobId: string, options: RequestOptions = {}): Promise<Job> {
    const { job } = await this.service.cancelJob({ jobId }, { timeoutMs: CALL_TIMEOUT_MS, ...options });
    return required(job, 'CancelJob');
  }

  /** Sets a job aside until it is resumed; FAILED_PRECONDITION when it has ended, NOT_FOUND when there is none with that id. */
  async pauseJob(jobId: string, options: RequestOptions = {}): Promise<Job> {
    const { job } = await this.service.pauseJob({ jobId }, { timeoutMs: CALL_TIMEOUT_MS, ...options });
    return required(job, 'PauseJob');
  }

  /**
   * Makes a paused, failed or cancelled job go on after its last finished block; FAILED_PRECONDITION when it has succeeded, NOT_FOUND when
   * there is none with that id.
   */
  async resumeJob(jobId: string, options: RequestOptions = {}): Promise<Job> {
    const { job } = await this.service.resumeJob({ jobId }, { timeoutMs: CALL_TIMEOUT_MS, ...options });
    return required(job, 'ResumeJob');
  }

  /**
   * Forgets a job that has ended and deletes its unfinished output; FAILED_PRECONDITION when it has not ended, NOT_FOUND when there is none
   * with that id.
   */
  async deleteJob(jobId: string, { deleteOutput = false, ...options }: DeleteJobOptions = {}): Promise<void> {
    await this.service.deleteJob({ jobId, deleteOutput }, { timeoutMs: CALL_TIMEOUT_MS, ...options });
  }

  /** What a job found; FAILED_PRECONDITION before it has succeeded, NOT_FOUND when there is none with that id. */
  getReport(jobId: string, options: RequestOptions = {}): Promise<GetReportResponse> {
    return this.service.getReport({ jobId }, { timeoutMs: CALL_TIMEOUT_MS, ...options });
  }

  /**
   * Writes what a job found to a file, as JSON: of a prune job the content of its `secateur.json`. A file that is there is replaced, whole or
   * not at all. FAILED_PRECONDITION before the job has succeeded, NOT_FOUND when there is none with that id.
   */
  async downloadReport(jobId: string, path: string, options: RequestOptions = {}): Promise<void> {
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

  /** The spans recorded for a job: OTLP/JSON ExportTraceServiceRequests. NOT_FOUND when there is none with that id. */
  async *getTrace(jobId: string, options: RequestOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const { otlpJson } of this.service.getTrace({ jobId }, { timeoutMs: TRACE_TIMEOUT_MS, ...options })) yield otlpJson;
  }

  /** The kernel nodes and their health. */
  async listNodes(options: RequestOptions = {}): Promise<readonly Node[]> {
    const { nodes } = await this.service.listNodes({}, { timeoutMs: CALL_TIMEOUT_MS, ...options });
    return nodes;
  }

  /** Closes the connection; running calls are finished. */
  close(): void {
    this.channel.close();
  }
}

function required<Part>(part: Part | undefined, method: string): Part {
  if (part === undefined) throw new SecateurError('INTERNAL', `${method} answered without content; the service may be of another version.`);
  return part;
}

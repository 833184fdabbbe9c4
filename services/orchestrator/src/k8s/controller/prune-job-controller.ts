import { isDeepStrictEqual } from 'node:util';
import type { AuditActions, AuditedAction } from '@secateur/access';
import { hasEnded, isBegun, SecateurError } from '@secateur/core';
import type { Caller } from '@secateur/rpc';
import { JobState, type Job } from '@secateur/proto/job';
import type { Logger } from 'pino';
import type { JobManager } from '../../jobs/job-manager.js';
import { toDate } from '../../store/job-record.js';
import { followObjects, keyOf } from '../follow-objects.js';
import { CONFLICT, httpStatusOf, loadConfig, NOT_FOUND, ownNamespace } from '../kubernetes-client.js';
import { EventTeller } from './event-teller.js';
import { jobSpecOf } from './job-spec-of.js';
import { lead } from './leader-election.js';
import { collectionPath, listPruneJobs, patchFinalizers, patchStatus, readPruneJob } from './prune-job-api.js';
import { FINALIZER, identityOf, jobIdOf, type PruneJob } from './prune-job.js';
import { statusOf, tellsOfEnd, tellsOfRefusal, type Finding } from './prune-job-status.js';
import { WorkQueue } from './work-queue.js';

const LEASE = 'secateur-controller';
/** Pausing or cancelling a job waits until it has stopped, so others are worked on meanwhile. */
const WORKERS = 4;
/** How often jobs are looked at: those that are run, those that wait, and those that somebody may make go on. */
const RUNNING_EVERY_MS = 1_000;
const WAITING_EVERY_MS = 3_000;
const STOPPED_EVERY_MS = 60_000;
const STATUS_EVERY_MS = 1_000;
/** Retries after conflicts before the object waits for its turn again. */
const MAXIMUM_CONFLICTS = 3;
const START_TIMEOUT_MS = 5_000;

/** Whose PruneJobs are followed; `own` is the namespace of the pod. */
export type ControlledNamespaces = 'own' | 'all' | { readonly name: string };

export interface PruneJobControllerOptions {
  readonly jobs: JobManager;
  readonly namespaces: ControlledNamespaces;
  /** Name of this orchestrator, which no other one has. */
  readonly identity: string;
  /** Another orchestrator takes over when the one that leads has been silent for so long. */
  readonly leaseMs: number;
  readonly logger: Logger;
  /** Writes what is done to jobs for PruneJobs, which is no call. */
  readonly audit: AuditActions;
}

/** Has the job of every PruneJob be what its spec says, and its status tell what became of it; in one orchestrator at a time. */
export async function runPruneJobController(options: PruneJobControllerOptions, signal: AbortSignal): Promise<void> {
  const { identity, leaseMs, logger } = options;
  await lead({ lease: LEASE, identity, durationMs: leaseMs, logger }, (term) => new Term(options, term).run(), signal);
}

/** The work of one orchestrator while it leads. */
class Term {
  private objects: ReadonlyMap<string, PruneJob> = new Map();
  /** When the status of an object was written last. */
  private readonly writtenAtMs = new Map<string, number>();
  private readonly queue: WorkQueue;
  private readonly events: EventTeller;

  constructor(
    private readonly options: PruneJobControllerOptions,
    private readonly signal: AbortSignal,
  ) {
    this.events = new EventTeller(options, signal);
    this.queue = new WorkQueue({
      workers: WORKERS,
      process: (key) => this.reconcile(key),
      onProblem: (key, error) => {
        if (!signal.aborted) options.logger.warn({ pruneJob: key, err: error }, 'a PruneJob could not be brought about; it is tried again');
      },
    });
  }

  async run(): Promise<void> {
    const namespace = await this.namespace();
    await followObjects<PruneJob>(
      {
        path: collectionPath(namespace),
        list: (config) => listPruneJobs(config, namespace),
        onObjects: (objects) => this.onObjects(objects),
        onProblem: (error) => this.options.logger.warn({ err: error }, 'the PruneJobs cannot be watched'),
      },
      this.signal,
    );
    await this.queue.stop();
  }

  private async namespace(): Promise<string | undefined> {
    const { namespaces } = this.options;
    if (namespaces === 'all') return undefined;
    return namespaces === 'own' ? ownNamespace(await loadConfig()) : namespaces.name;
  }

  private onObjects(objects: readonly PruneJob[]): void {
    const before = this.objects;
    this.objects = new Map(objects.map((object) => [keyOf(object), object]));
    for (const [key, object] of this.objects) {
      if (before.get(key)?.metadata?.resourceVersion !== object.metadata?.resourceVersion) this.queue.add(key);
    }
    for (const [key, object] of before) {
      const present = this.objects.get(key);
      if (present === undefined) this.writtenAtMs.delete(key);
      if (present?.metadata?.uid !== object.metadata?.uid) this.events.forget(object);
    }
  }

  /** A conflict means that the object at hand is old, as the watch is late, so it is read anew. */
  private async reconcile(key: string): Promise<number | undefined> {
    let object = this.objects.get(key);
    for (let conflicts = 0; object !== undefined && !this.signal.aborted; ++conflicts) {
      try {
        return await this.bringAbout(key, object);
      } catch (error) {
        if (httpStatusOf(error) === NOT_FOUND) return undefined;
        if (httpStatusOf(error) !== CONFLICT || conflicts >= MAXIMUM_CONFLICTS) throw error;
        object = await readIfThere(object);
      }
    }
    return undefined;
  }

  private async bringAbout(key: string, object: PruneJob): Promise<number | undefined> {
    const finalizers = object.metadata?.finalizers ?? [];
    if (object.metadata?.deletionTimestamp !== undefined) {
      if (finalizers.includes(FINALIZER)) await this.finalize(object, finalizers);
      return undefined;
    }
    // Before there is a job: nothing must be left when the object is deleted right after.
    const held = finalizers.includes(FINALIZER) ? object : await patchFinalizers(object, [...finalizers, FINALIZER]);
    const finding = await this.find(held);
    if (finding === undefined) return undefined;
    if (finding.kind === 'job') await this.events.tellOfJob(held, callerOf(held), finding.job);
    const toldAgainMs = await this.tell(key, held, finding);
    if (finding.kind === 'delayed') throw finding.error;
    return least(toldAgainMs, lookAgainMs(finding));
  }

  /** What there is to tell of an object, after its job was made what the spec says; undefined where its status stays. */
  private async find(object: PruneJob): Promise<Finding | undefined> {
    const { jobs } = this.options;
    const { spec, status } = object;
    const identity = identityOf(object);
    const caller = callerOf(object);
    const present = await unlessMissing(jobs.get(caller, jobIdOf(identity)));
    if (present === undefined) {
      // Its time to live was over.
      if (status !== undefined && (tellsOfEnd(status) || tellsOfRefusal(status, identity.generation))) return undefined;
      if (spec.suspend === true) return { kind: 'suspended' };
      return this.create(object, caller);
    }
    if (!hasEnded(present.state)) {
      if (spec.suspend === true && present.state !== JobState.PAUSED)
        return this.findingOf(object, await this.act('PauseJob', object, () => jobs.pause(caller, present.id)));
      if (spec.suspend !== true && present.state === JobState.PAUSED)
        return this.findingOf(object, await this.act('ResumeJob', object, () => jobs.resume(caller, present.id)));
    }
    return this.findingOf(object, present);
  }

  private async create(object: PruneJob, caller: Caller): Promise<Finding> {
    try {
      const create = () => this.options.jobs.create(caller, jobIdOf(identityOf(object)), jobSpecOf(object.spec));
      const job = await this.act('CreateJob', object, create);
      return await this.findingOf(object, job);
    } catch (error) {
      if (!(error instanceof SecateurError) || error.reason === 'INTERNAL') throw error;
      return { kind: error.retryable || error.reason === 'RESOURCE_EXHAUSTED' ? 'delayed' : 'refused', error };
    }
  }

  private act<Result>(method: AuditedAction['method'], object: PruneJob, act: () => Promise<Result>): Promise<Result> {
    return this.options.audit({ caller: callerOf(object), method, jobId: jobIdOf(identityOf(object)) }, act);
  }

  private async findingOf(object: PruneJob, job: Job): Promise<Finding> {
    const { startedAt, actualSparsity } = object.status ?? {};
    return {
      kind: 'job',
      job,
      startedAt: startedAt === undefined ? await this.startOf(object, job) : new Date(startedAt),
      actualSparsity: job.state === JobState.SUCCEEDED ? (actualSparsity ?? (await this.sparsityOf(object, job))) : undefined,
    };
  }

  /** When the first attempt began, which the events of the job tell. */
  private async startOf(object: PruneJob, { id, createdAt, attempt }: Job): Promise<Date | undefined> {
    if (attempt === 0) return undefined;
    const signal = AbortSignal.any([this.signal, AbortSignal.timeout(START_TIMEOUT_MS)]);
    const { events } = await this.options.jobs.watch(callerOf(object), id, { jobCreatedAt: createdAt, afterSequence: 0 }, signal);
    for await (const told of events) {
      if (told?.event?.$case === 'attemptStarted' && told.time !== undefined) return toDate(told.time);
    }
    return undefined;
  }

  private async sparsityOf(object: PruneJob, { id, createdAt }: Job): Promise<number | undefined> {
    const report = await this.options.jobs.report(callerOf(object), id, createdAt);
    return report.$case === 'prune' ? report.value.actualSparsity : undefined;
  }

  /** Writes the status where it changed; a number of milliseconds where that has to wait, as it was written just before. */
  private async tell(key: string, object: PruneJob, finding: Finding): Promise<number | undefined> {
    const { generation, uid } = identityOf(object);
    const status = statusOf(finding, generation, object.status, new Date());
    if (isDeepStrictEqual(status, object.status)) return undefined;
    const waitMs = (this.writtenAtMs.get(key) ?? Number.NEGATIVE_INFINITY) + STATUS_EVERY_MS - performance.now();
    if (waitMs > 0) return waitMs;
    if (this.signal.aborted) return undefined;
    await patchStatus(object, status);
    this.events.tellOfStatus(object, status);
    this.writtenAtMs.set(key, performance.now());
    this.options.logger.debug({ pruneJob: key, uid, phase: status.phase }, 'status written');
    return undefined;
  }

  /** Stops and forgets the job, and lets the object go. The finished output stays. */
  private async finalize(object: PruneJob, finalizers: readonly string[]): Promise<void> {
    const { jobs } = this.options;
    const id = jobIdOf(identityOf(object));
    const caller = callerOf(object);
    const cancelled = await unlessMissing(this.act('CancelJob', object, () => jobs.cancel(caller, id)));
    if (cancelled !== undefined) {
      await this.events.tellOfJob(object, caller, cancelled);
      await unlessMissing(this.act('DeleteJob', object, () => jobs.delete(caller, id, false)));
    }
    if (this.signal.aborted) return;
    await patchFinalizers(
      object,
      finalizers.filter((finalizer) => finalizer !== FINALIZER),
    );
  }
}

/** The jobs of a namespace are those of the tenant of that name. */
function callerOf(object: PruneJob): Caller {
  const { namespace, name } = identityOf(object);
  return { name: `prunejob:${namespace}/${name}`, tenant: namespace, administrator: false };
}

function lookAgainMs(finding: Finding): number | undefined {
  if (finding.kind !== 'job' || finding.job.state === JobState.SUCCEEDED) return undefined;
  if (hasEnded(finding.job.state)) return STOPPED_EVERY_MS;
  return isBegun(finding.job.state) ? RUNNING_EVERY_MS : WAITING_EVERY_MS;
}

function least(left: number | undefined, right: number | undefined): number | undefined {
  return left === undefined ? right : Math.min(left, right ?? left);
}

async function readIfThere(object: PruneJob): Promise<PruneJob | undefined> {
  try {
    return await readPruneJob(identityOf(object));
  } catch (error) {
    if (httpStatusOf(error) === NOT_FOUND) return undefined;
    throw error;
  }
}

async function unlessMissing<Value>(call: Promise<Value>): Promise<Value | undefined> {
  try {
    return await call;
  } catch (error) {
    if (error instanceof SecateurError && error.reason === 'NOT_FOUND') return undefined;
    throw error;
  }
}

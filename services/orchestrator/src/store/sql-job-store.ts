import { hasEnded, SecateurError } from '@secateur/core';
import { Job, JobEvent, JobSpec, JobState } from '@secateur/proto/job';
import { sql, type Selectable, type Transaction } from 'kysely';
import type { Database } from './database.js';
import {
  activeOutput,
  applyChange,
  creationTime,
  pendingLayers,
  roomToGoOn,
  toDate,
  type JobChange,
  type JobKey,
  type JobRecord,
} from './job-record.js';
import type { HeldJob, JobStore, ListOptions, RunningLimits } from './job-store.js';
import type { JobsTable, Schema } from './schema.js';
import { leaseLost, noSuchJob, notEnded, outputTaken, tooManyJobs } from './store-errors.js';

/** Key of the lock that makes one orchestrator lease at a time, so that limits hold. */
const ACQUIRE_LOCK = 7_283_462;
/** First key of the locks, one for each tenant, that make its jobs come, and go on, one after the other, so that all of them are counted. */
const TENANT_LOCK = 7_283_463;
/** With the states as they are, not as parameters, which an index of only these jobs would not serve. */
const IS_RUNNABLE = sql<boolean>`jobs.state IN (${sql.join([JobState.QUEUED, JobState.PLANNING, JobState.RUNNING].map((state) => sql.lit(state)))})`;
const ENDED_STATES = [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED];
const TRACE_PAGE = 16;

type JobRow = Pick<
  Selectable<JobsTable>,
  'job' | 'number' | 'requested' | 'sequence' | 'wish' | 'lease_owner' | 'lease_token' | 'lease_expires_at'
> & { readonly has_report: boolean };

/** Keeps jobs in PostgreSQL, in a server or inside this process. */
export class SqlJobStore implements JobStore {
  constructor(private readonly database: Database) {}

  insert(job: Job, requested: JobSpec, maximumUnended: number): Promise<JobRecord | undefined> {
    const record = { job, requested, sequence: 0, wish: 'run', lease: undefined, hasReport: false } as const;
    return this.transaction(async (transaction) => {
      await lockTenant(transaction, job.tenant);
      const taken = await transaction.selectFrom('jobs').select('id').where('id', '=', job.id).executeTakeFirst();
      if (taken !== undefined) return undefined;
      await requireRoom(transaction, job.tenant, maximumUnended);
      const inserted = await transaction
        .insertInto('jobs')
        .values({
          id: job.id,
          tenant: job.tenant,
          priority: job.spec?.priority ?? 0,
          requested: JobSpec.encode(requested).finish(),
          ready_at: new Date(0),
          created_at: creationTime(job),
          ...columnsOf(record),
        })
        .onConflict((conflict) => conflict.column('id').doNothing())
        .returning('number')
        .executeTakeFirst();
      return inserted && { ...record, ...inserted };
    });
  }

  read(id: string): Promise<JobRecord | undefined> {
    return this.query(async ({ db }) => {
      const row = await db.selectFrom('jobs').select(RECORD_COLUMNS).select(HAS_REPORT).where('id', '=', id).executeTakeFirst();
      return row && toRecord(row);
    });
  }

  readReport({ id, number }: JobKey): Promise<Uint8Array | undefined> {
    return this.query(async ({ db }) => {
      const row = await db.selectFrom('jobs').select('report').where('id', '=', id).where('number', '=', number).executeTakeFirst();
      return row?.report ?? undefined;
    });
  }

  list({ tenant, states, before, limit }: ListOptions): Promise<Job[]> {
    return this.query(async ({ db }) => {
      let jobs = db.selectFrom('jobs').select('job').orderBy('created_at', 'desc').orderBy('id', 'desc').limit(limit);
      if (tenant !== undefined) jobs = jobs.where('tenant', '=', tenant);
      if (states.length > 0) jobs = jobs.where('state', 'in', states);
      if (before !== undefined) jobs = jobs.where(sql<boolean>`(created_at, id) < (${before.createdAt}::timestamptz, ${before.id}::text)`);
      const rows = await jobs.execute();
      return rows.map(({ job }) => Job.decode(job));
    });
  }

  change(id: string, decide: (record: JobRecord, now: Date) => JobChange): Promise<JobRecord> {
    return this.transaction(async (transaction) => {
      const before = await lockJob(transaction, id);
      // Not the transaction's time, which is that of its beginning: it may have waited for the lock.
      const now = await readTime(transaction);
      const change = decide(before, now);
      const { record, events } = applyChange(before, change, now);
      const room = roomToGoOn(before, record, change);
      if (room !== undefined) {
        const { tenant } = record.job;
        // Nothing is written yet that one who has this lock could wait for.
        await lockTenant(transaction, tenant);
        await requireRoom(transaction, tenant, room);
      }
      await transaction
        .updateTable('jobs')
        .set({
          ...columnsOf(record),
          ...(change.report === undefined ? {} : { report: change.report }),
          ...(change.requeue === true ? { position: sql<number>`nextval('secateur.queue_position')` } : {}),
          ...(change.delayMs === undefined ? {} : { ready_at: afterNow(change.delayMs) }),
        })
        .where('id', '=', id)
        .execute();
      if (events.length > 0) {
        await transaction
          .insertInto('job_events')
          .values(events.map((event) => ({ job_id: id, sequence: event.sequence, event: JobEvent.encode(event).finish() })))
          .execute();
      }
      return record;
    });
  }

  acquire(owner: string, leaseMs: number, { others, tenants }: RunningLimits): Promise<JobRecord | undefined> {
    return this.transaction(async (transaction) => {
      await sql`SELECT pg_advisory_xact_lock(${sql.lit(ACQUIRE_LOCK)})`.execute(transaction);
      const { rows } = await sql<{ id: string }>`
        WITH running AS (
          SELECT tenant, count(*) AS jobs FROM secateur.jobs
          WHERE lease_owner IS NOT NULL AND lease_expires_at > clock_timestamp() GROUP BY tenant
        )
        SELECT jobs.id FROM secateur.jobs LEFT JOIN running ON running.tenant = jobs.tenant
        WHERE ${IS_RUNNABLE}
          AND (jobs.lease_owner IS NULL OR jobs.lease_expires_at <= clock_timestamp())
          AND jobs.ready_at <= clock_timestamp()
          AND coalesce(running.jobs, 0) < coalesce((${JSON.stringify(tenants)}::jsonb ->> jobs.tenant)::bigint, ${others}::bigint)
        ORDER BY jobs.priority DESC, coalesce(running.jobs, 0), jobs.position
        LIMIT 1 FOR UPDATE OF jobs SKIP LOCKED
      `.execute(transaction);
      const next = rows[0];
      if (next === undefined) return undefined;
      const leased = await transaction
        .updateTable('jobs')
        .set({
          lease_owner: owner,
          // Orchestrators of a version before count by themselves.
          lease_token: sql<number>`greatest(lease_token + 1, nextval('secateur.lease_tokens'))`,
          lease_expires_at: afterNow(leaseMs),
        })
        .where('id', '=', next.id)
        .returning(RECORD_COLUMNS)
        .returning(HAS_REPORT)
        .executeTakeFirstOrThrow();
      return toRecord(leased);
    });
  }

  held(owner: string): Promise<HeldJob[]> {
    return this.query(async ({ db }) => {
      const rows = await db.selectFrom('jobs').select(['id', 'lease_token', 'wish']).where('lease_owner', '=', owner).execute();
      return rows.map(({ id, lease_token, wish }) => ({ id, token: lease_token, wish }));
    });
  }

  events({ id, number }: JobKey, after: number, limit: number): Promise<JobEvent[]> {
    return this.query(async ({ db }) => {
      const rows = await db
        .selectFrom('job_events')
        // In the same statement: the id may become another job's between two of them.
        .innerJoin('jobs', 'jobs.id', 'job_events.job_id')
        .select('job_events.event')
        .where('job_events.job_id', '=', id)
        .where('jobs.number', '=', number)
        .where('job_events.sequence', '>', after)
        .orderBy('job_events.sequence')
        .limit(limit)
        .execute();
      if (rows.length === 0) {
        const job = await db.selectFrom('jobs').select('id').where('id', '=', id).where('number', '=', number).executeTakeFirst();
        if (job === undefined) throw noSuchJob(id);
      }
      return rows.map(({ event }) => JobEvent.decode(event));
    });
  }

  sequences(jobs: readonly JobKey[]): Promise<Map<number, number>> {
    if (jobs.length === 0) return Promise.resolve(new Map<number, number>());
    return this.query(async ({ db }) => {
      // By their ids, which have an index.
      const ids = jobs.map(({ id }) => id);
      const rows = await db.selectFrom('jobs').select(['number', 'sequence']).where('id', 'in', ids).execute();
      return new Map<number, number>(rows.map(({ number, sequence }) => [number, sequence]));
    });
  }

  addTrace(id: string, token: number, chunk: Uint8Array): Promise<void> {
    return this.query(async ({ db }) => {
      const leased = db
        .selectFrom('jobs')
        .select(['id', sql<Uint8Array>`${chunk}::bytea`.as('chunk')])
        .where('id', '=', id)
        .where('lease_token', '=', token)
        .where('lease_expires_at', '>', sql<Date>`clock_timestamp()`);
      const added = db.insertInto('job_traces').columns(['job_id', 'chunk']).expression(leased).returning('number');
      if ((await added.executeTakeFirst()) === undefined) throw leaseLost(id);
    });
  }

  async *readTrace({ id, number: job }: JobKey): AsyncGenerator<Uint8Array, void> {
    let last = 0;
    for (;;) {
      const after = last;
      const page = await this.query(({ db }) =>
        db
          .selectFrom('job_traces')
          .innerJoin('jobs', 'jobs.id', 'job_traces.job_id')
          .select(['job_traces.number', 'job_traces.chunk'])
          .where('job_traces.job_id', '=', id)
          .where('jobs.number', '=', job)
          .where('job_traces.number', '>', after)
          .orderBy('job_traces.number')
          .limit(TRACE_PAGE)
          .execute(),
      );
      for (const { number, chunk } of page) {
        last = number;
        yield chunk;
      }
      if (page.length < TRACE_PAGE) return;
    }
  }

  remove({ id, number }: JobKey): Promise<JobRecord> {
    return this.transaction(async (transaction) => {
      const record = await lockJob(transaction, id);
      if (record.number !== number) throw noSuchJob(id);
      if (!hasEnded(record.job.state)) throw notEnded(id);
      await transaction.deleteFrom('jobs').where('id', '=', id).execute();
      return record;
    });
  }

  expired(limit: number): Promise<JobRecord[]> {
    return this.query(async ({ db }) => {
      const rows = await db
        .selectFrom('jobs')
        .select(RECORD_COLUMNS)
        .select(HAS_REPORT)
        .where('expires_at', '<=', sql<Date>`clock_timestamp()`)
        .orderBy('expires_at')
        .limit(limit)
        .execute();
      return rows.map(toRecord);
    });
  }

  isBeingWritten(output: string): Promise<boolean> {
    return this.query(async ({ db }) => {
      const job = await db.selectFrom('jobs').select('id').where('active_output', '=', output).executeTakeFirst();
      return job !== undefined;
    });
  }

  counts(): Promise<ReadonlyMap<JobState, number>> {
    return this.query(async ({ db }) => {
      const rows = await db
        .selectFrom('jobs')
        .select('state')
        .select((build) => build.fn.countAll().as('count'))
        .groupBy('state')
        .execute();
      return new Map(rows.map(({ state, count }) => [state as JobState, Number(count)]));
    });
  }

  pendingLayers(): Promise<number> {
    return this.query(async ({ db }) => {
      const rows = await db.selectFrom('jobs').select('job').where(IS_RUNNABLE).execute();
      return rows.reduce((sum, { job }) => sum + pendingLayers(Job.decode(job)), 0);
    });
  }

  close(): Promise<void> {
    return this.database.close();
  }

  private async query<Result>(work: (database: Database) => Promise<Result>): Promise<Result> {
    try {
      return await work(this.database);
    } catch (error) {
      throw toStoreError(error);
    }
  }

  private transaction<Result>(work: (transaction: Transaction<Schema>) => Promise<Result>): Promise<Result> {
    return this.query(({ db }) => db.transaction().execute(work));
  }
}

const RECORD_COLUMNS = ['job', 'number', 'requested', 'sequence', 'wish', 'lease_owner', 'lease_token', 'lease_expires_at'] as const;
const HAS_REPORT = sql<boolean>`report IS NOT NULL`.as('has_report');

/** The columns that follow from a record and change with it. */
function columnsOf(record: Omit<JobRecord, 'number'>) {
  const { job, sequence, wish, lease } = record;
  return {
    job: Job.encode(job).finish(),
    state: job.state,
    sequence,
    wish,
    lease_owner: lease?.owner ?? null,
    lease_expires_at: lease?.expiresAt ?? null,
    active_output: activeOutput(record) ?? null,
    expires_at: job.expiresAt === undefined ? null : toDate(job.expiresAt),
  };
}

function toRecord(row: JobRow): JobRecord {
  const { lease_owner: owner, lease_expires_at: expiresAt } = row;
  return {
    job: Job.decode(row.job),
    number: row.number,
    requested: JobSpec.decode(row.requested),
    sequence: row.sequence,
    wish: row.wish,
    lease: owner === null || expiresAt === null ? undefined : { owner, token: row.lease_token, expiresAt },
    hasReport: row.has_report,
  };
}

async function lockJob(transaction: Transaction<Schema>, id: string): Promise<JobRecord> {
  const row = await transaction
    .selectFrom('jobs')
    .select(RECORD_COLUMNS)
    .select(HAS_REPORT)
    .where('id', '=', id)
    .forUpdate()
    .executeTakeFirst();
  if (row === undefined) throw noSuchJob(id);
  return toRecord(row);
}

/** Until the transaction ends. Every statement after it sees what those who had the lock before have committed. */
async function lockTenant(transaction: Transaction<Schema>, tenant: string): Promise<void> {
  await sql`SELECT pg_advisory_xact_lock(${sql.lit(TENANT_LOCK)}, hashtext(${tenant}))`.execute(transaction);
}

/** With the lock of the tenant. */
async function requireRoom(transaction: Transaction<Schema>, tenant: string, maximumUnended: number): Promise<void> {
  const { count } = await transaction
    .selectFrom('jobs')
    .select((build) => build.fn.countAll().as('count'))
    .where('tenant', '=', tenant)
    .where('state', 'not in', ENDED_STATES)
    .executeTakeFirstOrThrow();
  if (Number(count) >= maximumUnended) throw tooManyJobs(tenant, maximumUnended);
}

async function readTime(transaction: Transaction<Schema>): Promise<Date> {
  const { rows } = await sql<{ now: Date }>`SELECT clock_timestamp() AS now`.execute(transaction);
  return rows[0]!.now;
}

function afterNow(milliseconds: number) {
  return sql<Date>`clock_timestamp() + ${milliseconds} * interval '1 millisecond'`;
}

/** SQLSTATE classes and codes of a server that cannot be reached, has no room, only reads while another takes over, or asks to try again. */
const UNAVAILABLE_CODES = /^(?:08...|53...|57P..|57014|25006|40001|40P01|55P03|E(?:CONN|HOST|NET|PIPE|TIMEDOUT|AI_AGAIN|NOTFOUND).*)$/;
/** Of a file system; the second has the code of a right that is missing. */
const DISK_PROBLEM = /No space left on device|Read-only file system/i;
const BROKEN_CONNECTION = /connection terminated|timeout exceeded|client has encountered a connection error|query read timeout/i;

function toStoreError(error: unknown): unknown {
  if (error instanceof SecateurError || typeof error !== 'object' || error === null) return error;
  const { code, constraint, detail, message } = error as Readonly<Record<string, unknown>>;
  if (constraint === 'jobs_active_output') {
    return outputTaken(/=\((?<output>.*)\) already/.exec(String(detail))?.groups?.['output'] ?? 'that folder');
  }
  if (DISK_PROBLEM.test(String(message))) {
    const what = `The job database cannot write: ${String(message)}. Free some space or make its disk writable; what waits is stored then.`;
    return new SecateurError('UNAVAILABLE', what, { cause: error });
  }
  if ((typeof code === 'string' && UNAVAILABLE_CODES.test(code)) || BROKEN_CONNECTION.test(String(message))) {
    return new SecateurError('UNAVAILABLE', 'The job database cannot be reached or has no room; try again later.', { cause: error });
  }
  return error;
}

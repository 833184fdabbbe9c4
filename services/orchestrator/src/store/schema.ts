import { Job } from '@secateur/proto/job';
import { sql, type ColumnType, type Generated, type Kysely, type Migration } from 'kysely';
import { creationTime, type Wish } from './job-record.js';

/** Everything lives in a schema of its own, so that the database may hold other things. */
export const SCHEMA = 'secateur';

/** Written, never read back into an object that says less. */
type Bytes = ColumnType<Uint8Array, Uint8Array, Uint8Array>;

export interface JobsTable {
  readonly id: string;
  /** Order of insertion. */
  readonly number: Generated<number>;
  /** As the job says. */
  readonly created_at: ColumnType<Date, Date, never>;
  readonly tenant: string;
  /** Encoded Job. */
  readonly job: Bytes;
  /** Encoded JobSpec, as it was given. */
  readonly requested: Bytes;
  /** Encoded GetReportResponse. */
  readonly report: ColumnType<Uint8Array | null, Uint8Array | undefined, Uint8Array | null>;
  /** A JobState. */
  readonly state: number;
  readonly priority: number;
  /** Place in the queue. */
  readonly position: Generated<number>;
  /** Not run before; long past where it waits for nothing, so that a clock that is set back delays no job. */
  readonly ready_at: ColumnType<Date, Date, ReturnType<typeof sql<Date>>>;
  /** Sequence number of the last event. */
  readonly sequence: number;
  readonly wish: Wish;
  readonly lease_owner: string | null;
  /** Token of the last lease. */
  readonly lease_token: Generated<number>;
  readonly lease_expires_at: Date | null;
  /** Folder that the job writes; null when none, or when it has ended. */
  readonly active_output: string | null;
  readonly expires_at: Date | null;
}

interface JobEventsTable {
  readonly job_id: string;
  readonly sequence: number;
  /** Encoded JobEvent. */
  readonly event: Bytes;
}

interface JobTracesTable {
  readonly number: Generated<number>;
  readonly job_id: string;
  readonly chunk: Bytes;
}

export interface Schema {
  readonly jobs: JobsTable;
  readonly job_events: JobEventsTable;
  readonly job_traces: JobTracesTable;
}

/** Applied once each, in the order of their names, when an orchestrator starts. They are never changed, only added to. */
export const MIGRATIONS: Readonly<Record<string, Migration>> = {
  '0001_jobs': {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql`
        CREATE SEQUENCE secateur.queue_position;
        CREATE TABLE secateur.jobs (
          id text PRIMARY KEY,
          number bigint GENERATED ALWAYS AS IDENTITY,
          tenant text NOT NULL,
          job bytea NOT NULL,
          requested bytea NOT NULL,
          report bytea,
          state smallint NOT NULL,
          priority integer NOT NULL,
          position bigint NOT NULL DEFAULT nextval('secateur.queue_position'),
          ready_at timestamptz NOT NULL DEFAULT now(),
          sequence bigint NOT NULL,
          wish text NOT NULL CHECK (wish IN ('run', 'pause', 'cancel')),
          lease_owner text,
          lease_token bigint NOT NULL DEFAULT 0,
          lease_expires_at timestamptz,
          active_output text CONSTRAINT jobs_active_output UNIQUE,
          expires_at timestamptz
        );
        CREATE INDEX jobs_number ON secateur.jobs (number);
        CREATE INDEX jobs_of_tenant ON secateur.jobs (tenant, number);
        CREATE INDEX jobs_in_queue ON secateur.jobs (priority DESC, position) WHERE state IN (1, 2, 3);
        CREATE INDEX jobs_leased ON secateur.jobs (lease_owner) WHERE lease_owner IS NOT NULL;
        CREATE INDEX jobs_expiring ON secateur.jobs (expires_at) WHERE expires_at IS NOT NULL;
        CREATE TABLE secateur.job_events (
          job_id text NOT NULL REFERENCES secateur.jobs ON DELETE CASCADE,
          sequence bigint NOT NULL,
          event bytea NOT NULL,
          PRIMARY KEY (job_id, sequence)
        );
        CREATE TABLE secateur.job_traces (
          number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
          job_id text NOT NULL REFERENCES secateur.jobs ON DELETE CASCADE,
          chunk bytea NOT NULL
        );
        CREATE INDEX job_traces_of_job ON secateur.job_traces (job_id, number);
      `.execute(db);
    },
  },
  // Lists go on after a time and an id, which tell nothing of other tenants' jobs and stay good when the job is deleted.
  '0002_jobs_by_creation': {
    async up(db: Kysely<unknown>): Promise<void> {
      // Orchestrators of the version before may go on inserting jobs for a while.
      await sql`ALTER TABLE secateur.jobs ADD COLUMN created_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', clock_timestamp())`.execute(
        db,
      );
      await readCreationTimes(db);
      await sql`
        DROP INDEX IF EXISTS secateur.jobs_number;
        DROP INDEX IF EXISTS secateur.jobs_of_tenant;
        CREATE INDEX jobs_by_creation ON secateur.jobs (created_at, id);
        CREATE INDEX jobs_of_tenant ON secateur.jobs (tenant, created_at, id);
      `.execute(db);
    },
  },
  // A job may have the id of one that was removed: no lease of that one stands for it.
  '0003_lease_tokens': {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql`
        CREATE SEQUENCE secateur.lease_tokens;
        SELECT setval('secateur.lease_tokens', greatest(1, max(lease_token))) FROM secateur.jobs;
      `.execute(db);
    },
  },
};

const READ_AT_ONCE = 500;

/** Copies the times from the jobs that are there into their column. */
async function readCreationTimes(db: Kysely<unknown>): Promise<void> {
  let last = 0;
  for (;;) {
    const { rows } = await sql<{ number: number; job: Uint8Array }>`
      SELECT number, job FROM secateur.jobs WHERE number > ${last} ORDER BY number LIMIT ${sql.lit(READ_AT_ONCE)}
    `.execute(db);
    for (const { number, job } of rows) {
      last = number;
      await sql`UPDATE secateur.jobs SET created_at = ${creationTime(Job.decode(job))} WHERE number = ${number}`.execute(db);
    }
    if (rows.length < READ_AT_ONCE) return;
  }
}

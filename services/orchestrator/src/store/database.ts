import { makeDirectory } from '@secateur/checkpoint';
import { SecateurError } from '@secateur/core';
import { Kysely, Migrator, PostgresDialect, sql, type Dialect } from 'kysely';
import { FolderLock } from '../output/folder-lock.js';
import { PgliteDialect } from './pglite-dialect.js';
import { MIGRATIONS, SCHEMA, type Schema } from './schema.js';

const POOL_SIZE = 10;
const CONNECT_TIMEOUT_MS = 5_000;
/** A statement that takes longer waits for something that will not come. */
const STATEMENT_TIMEOUT_MS = 30_000;
const IDLE_IN_TRANSACTION_TIMEOUT_MS = 2_000;

export interface Database {
  readonly db: Kysely<Schema>;
  close(): Promise<void>;
}

/** Connects to PostgreSQL and brings the schema up to date. */
export async function openPostgres(url: string, onError: (error: Error) => void): Promise<Database> {
  const { default: pg } = await import('pg');
  const pool = new pg.Pool({
    connectionString: url,
    max: POOL_SIZE,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    statement_timeout: STATEMENT_TIMEOUT_MS,
    query_timeout: STATEMENT_TIMEOUT_MS + CONNECT_TIMEOUT_MS,
    // An orchestrator that is frozen within a transaction must not keep the others from its jobs.
    idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_TIMEOUT_MS,
    keepAlive: true,
    application_name: 'secateur-orchestrator',
    types: {
      getTypeParser: (type, format) =>
        type === pg.types.builtins.INT8 ? Number : (pg.types.getTypeParser(type, format) as (text: string) => unknown),
    },
  });
  // A connection that breaks is replaced by the next that is needed. The pool tells of those that nobody uses; those within a transaction,
  // between two statements, have only this listener.
  pool.on('error', onError);
  pool.on('connect', (client) => client.on('error', onError));
  try {
    return await migrated(new PostgresDialect({ pool }), () => Promise.resolve());
  } catch (error) {
    throw error instanceof SecateurError ? error : cannotBeUsed(url, error);
  }
}

/** Names the server alone: the rest of a URL may hold a password. */
function cannotBeUsed(url: string, cause: unknown): SecateurError {
  const server = URL.canParse(url) ? ` at ${new URL(url).host}` : '';
  const remedy = 'check --state (or DATABASE_URL), that the server runs, and that it lets this user in.';
  return new SecateurError('UNAVAILABLE', `The job database${server} cannot be used; ${remedy}`, { cause });
}

/** Opens the database in a folder of this machine, which one process may use at a time, and brings the schema up to date. */
export async function openEmbedded(directory: string, onFatal: (error: SecateurError) => never): Promise<Database> {
  const { PGlite } = await import('@electric-sql/pglite');
  const { StateFolder } = await import('./state-folder.js');
  await makeDirectory(directory, 0o700);
  const lock = await FolderLock.take(directory, {
    advice: `stop it, choose another --state folder, or let several orchestrators share a PostgreSQL database`,
  });
  try {
    const database = new PGlite({ fs: new StateFolder(`${directory}/database`, onFatal) });
    const opened = await migrated(new PgliteDialect(database), () => lock.release());
    // Whoever had leases here is gone, and what waits after a failure has waited long enough. The time of day may have been set back since.
    const longAgo = new Date(0);
    await opened.db.updateTable('jobs').set({ lease_expires_at: longAgo }).where('lease_owner', 'is not', null).execute();
    await opened.db
      .updateTable('jobs')
      .set({ ready_at: sql<Date>`${longAgo}` })
      .execute();
    return opened;
  } catch (error) {
    await lock.release();
    throw error;
  }
}

async function migrated(dialect: Dialect, onClosed: () => Promise<void>): Promise<Database> {
  const db = new Kysely<Schema>({ dialect });
  try {
    await sql`CREATE SCHEMA IF NOT EXISTS ${sql.id(SCHEMA)}`.execute(db);
    const migrator = new Migrator({
      db,
      provider: { getMigrations: () => Promise.resolve({ ...MIGRATIONS }) },
      migrationTableSchema: SCHEMA,
    });
    const { error } = await migrator.migrateToLatest();
    if (error !== undefined) {
      throw new SecateurError('FAILED_PRECONDITION', 'The schema of the job database could not be brought up to date.', { cause: error });
    }
  } catch (error) {
    await db.destroy();
    throw error;
  }
  return {
    db: db.withSchema(SCHEMA),
    close: async () => {
      await db.destroy();
      await onClosed();
    },
  };
}

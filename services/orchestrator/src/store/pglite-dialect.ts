import type { PGlite } from '@electric-sql/pglite';
import {
  PostgresAdapter,
  PostgresIntrospector,
  PostgresQueryCompiler,
  type CompiledQuery,
  type DatabaseConnection,
  type DatabaseIntrospector,
  type Dialect,
  type DialectAdapter,
  type Driver,
  type Kysely,
  type QueryCompiler,
  type QueryResult,
} from 'kysely';

/** Kysely on PGlite, which is PostgreSQL with a single connection inside this process. */
export class PgliteDialect implements Dialect {
  constructor(private readonly database: PGlite) {}

  createDriver(): Driver {
    return new PgliteDriver(this.database);
  }

  createQueryCompiler(): QueryCompiler {
    return new PostgresQueryCompiler();
  }

  createAdapter(): DialectAdapter {
    return new PostgresAdapter();
  }

  createIntrospector(db: Kysely<never>): DatabaseIntrospector {
    return new PostgresIntrospector(db);
  }
}

/** Lends the connection to one user after the other, so that the statements of transactions do not mix. */
class PgliteDriver implements Driver {
  private free: Promise<void> = Promise.resolve();
  private release: () => void = () => undefined;

  constructor(private readonly database: PGlite) {}

  async init(): Promise<void> {
    await this.database.waitReady;
  }

  async acquireConnection(): Promise<DatabaseConnection> {
    const before = this.free;
    let release!: () => void;
    this.free = new Promise((resolve) => {
      release = resolve;
    });
    await before;
    this.release = release;
    return new PgliteConnection(this.database);
  }

  async beginTransaction(): Promise<void> {
    await this.database.exec('BEGIN');
  }

  async commitTransaction(): Promise<void> {
    await this.database.exec('COMMIT');
  }

  async rollbackTransaction(): Promise<void> {
    await this.database.exec('ROLLBACK');
  }

  releaseConnection(): Promise<void> {
    // The database computes in this thread: between two of its users the rest of the process has a turn.
    setImmediate(this.release);
    return Promise.resolve();
  }

  async destroy(): Promise<void> {
    await this.database.close();
  }
}

class PgliteConnection implements DatabaseConnection {
  constructor(private readonly database: PGlite) {}

  async executeQuery<Row>({ sql, parameters }: CompiledQuery): Promise<QueryResult<Row>> {
    // Only the simple protocol takes several statements at once, as migrations have them.
    if (parameters.length === 0) {
      const results = await this.database.exec(sql);
      return toQueryResult<Row>(results.at(-1));
    }
    return toQueryResult<Row>(await this.database.query(sql, [...parameters]));
  }

  async *streamQuery<Row>(): AsyncGenerator<QueryResult<Row>, void> {
    throw new Error('PGlite answers a query all at once; it has no cursors.');
  }
}

function toQueryResult<Row>(result: { readonly rows: readonly unknown[]; readonly affectedRows?: number } | undefined): QueryResult<Row> {
  const rows = (result?.rows ?? []) as Row[];
  return result?.affectedRows === undefined ? { rows } : { rows, numAffectedRows: BigInt(result.affectedRows) };
}

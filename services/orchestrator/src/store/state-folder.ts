import type { PGlite } from '@electric-sql/pglite';
import { NodeFS } from '@electric-sql/pglite/nodefs';
import { toFileError } from '@secateur/checkpoint';
import type { SecateurError } from '@secateur/core';

/** Files without which a commit is not durable: PostgreSQL ends its process when it cannot write them, and goes on from them when it is started again. */
const VITAL_FILES = /\/(?:pg_wal\/|global\/pg_control$)/;

/** Errors of Emscripten have the numbers of WASI. */
const ERRNO_NAMES: Readonly<Record<number, string>> = { 19: 'EDQUOT', 22: 'EFBIG', 29: 'EIO', 51: 'ENOSPC', 69: 'EROFS' };

type InitOptions = Parameters<NodeFS['init']>[1];

interface Stream {
  readonly path: string;
}

interface StreamOperations {
  write(stream: Stream, ...rest: readonly unknown[]): number;
}

interface NodeOperations {
  mknod(parent: unknown, name: string, ...rest: readonly unknown[]): unknown;
}

/** What is used of Emscripten's file systems. */
interface EmscriptenModule {
  readonly FS: { lookupNode(parent: unknown, name: string): unknown; destroyNode(node: unknown): void };
  readonly NODEFS: { readonly node_ops: NodeOperations; readonly stream_ops: StreamOperations };
}

/**
 * The files of the embedded database. PGlite goes round for ever, and its process with it, when it cannot write what makes commits durable, so
 * `onFatal` is to end the process then.
 */
export class StateFolder extends NodeFS {
  constructor(
    private readonly directory: string,
    private readonly onFatal: (error: SecateurError) => never,
  ) {
    super(directory);
  }

  override async init(database: PGlite, options: InitOptions): Promise<{ emscriptenOpts: InitOptions }> {
    const { emscriptenOpts } = await super.init(database, options);
    const guard = (module: object): void => {
      this.endWithVitalFiles(module as EmscriptenModule);
      forgetFilesNotMade(module as EmscriptenModule);
    };
    return { emscriptenOpts: { ...emscriptenOpts, preRun: [...(emscriptenOpts.preRun ?? []), guard] } };
  }

  private endWithVitalFiles({ NODEFS: { stream_ops: operations } }: EmscriptenModule): void {
    const write = operations.write.bind(operations);
    operations.write = (stream, ...rest) => {
      try {
        return write(stream, ...rest);
      } catch (error) {
        if (VITAL_FILES.test(stream.path)) this.onFatal(this.explain(error));
        throw error;
      }
    };
  }

  private explain(error: unknown): SecateurError {
    const errno = (error as { readonly errno?: number }).errno ?? 0;
    return toFileError('write', this.directory, Object.assign(new Error('PGlite'), { code: ERRNO_NAMES[errno] ?? 'EIO' }));
  }
}

/**
 * Emscripten remembers a file before it makes it, also one that it then could not make. PostgreSQL could not open such a file, nor make it once there is
 * room again, because it exists, and every transaction that needs it would fail for as long as the process lives.
 */
function forgetFilesNotMade({ FS: files, NODEFS: { node_ops: operations } }: EmscriptenModule): void {
  const mknod = operations.mknod.bind(operations);
  operations.mknod = (parent, name, ...rest) => {
    try {
      return mknod(parent, name, ...rest);
    } catch (error) {
      files.destroyNode(files.lookupNode(parent, name));
      throw error;
    }
  };
}

import type { Transferable } from 'node:worker_threads';
import Tinypool from 'tinypool';

type Thread = Tinypool['threads'][number];

/** Threads that run the default function of a compiled module. They start at once, and must be closed. */
export class WorkerThreads<Task, Result> {
  private readonly pool: Tinypool;
  private readonly started: Promise<unknown>;
  private closing: Promise<void> | undefined;

  constructor(module: URL, count: number) {
    // The options of this process, such as tracing, belong to it alone.
    const { NODE_OPTIONS: _ofThisProcess, ...env } = process.env;
    this.pool = new Tinypool({
      filename: module.href,
      minThreads: count,
      maxThreads: count,
      env: env as Record<string, string>,
      execArgv: [],
    });
    this.started = Promise.all(this.pool.threads.map(startOf));
  }

  /** Not to be called once they are being closed: it would start a thread that nobody ends. */
  async run(task: Task, transferList: readonly Transferable[] = []): Promise<Result> {
    return (await this.pool.run(task, { transferList: [...transferList] })) as Result;
  }

  /** Fails the tasks that have not ended. */
  close(): Promise<void> {
    // A thread that is ended while it loads its modules leaves their files open.
    this.closing ??= this.started.then(() => this.pool.destroy());
    return this.closing;
  }
}

/** Until the thread has loaded its modules, or is gone. */
function startOf(thread: Thread): Promise<void> {
  return new Promise((resolve) => {
    // The first that it sends says that it is ready.
    for (const event of ['message', 'exit']) thread.once(event, () => resolve());
  });
}

import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { SecateurError, throwIfCancelled } from '@secateur/core';
import { toFileError } from '../files/file-errors.js';
import type { ToChild, ToParent } from './messages.js';

/** Of what the process writes to stderr, what a defect is explained by. */
const KEPT_OUTPUT = 4_000;

export interface IsolatedOptions {
  /** A module that calls `serveRequests`. */
  readonly module: URL;
  /** Answers what the process needs to go on. */
  readonly answer?: (question: never) => Promise<unknown>;
  readonly signal?: AbortSignal | undefined;
  /** What its JavaScript objects may take. Defaults to what Node takes on this machine. */
  readonly heapMebibytes?: number | undefined;
}

export interface RequestLimits {
  readonly timeoutMs: number;
  /** The error of a request that took longer. */
  readonly onTimeout: () => SecateurError;
  /** Names in errors what the process reads. */
  readonly subject: string;
}

interface Pending {
  readonly resolve: (reply: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly subject: string;
}

/**
 * Reads what others wrote where its time and memory are bounded: a process of its own, which is ended when a request takes too long, and which
 * takes nobody with it when its memory runs out; a thread would. One request is served at a time. Must be closed.
 */
export class IsolatedProcess {
  private readonly child: ChildProcess;
  private readonly exited: Promise<void>;
  private pending: Pending | undefined;
  private last: Promise<unknown> = Promise.resolve();
  private nextId = 0;
  private ended: Error | undefined;
  private output = '';

  constructor(private readonly options: IsolatedOptions) {
    const { module, signal, heapMebibytes } = options;
    const execArgv = heapMebibytes === undefined ? [] : [`--max-old-space-size=${heapMebibytes}`];
    throwIfCancelled(signal);
    // The options of this process, such as tracing, belong to it alone.
    const { NODE_OPTIONS: _ofThisProcess, ...env } = process.env;
    this.child = fork(fileURLToPath(module), [], { execArgv, env, serialization: 'advanced', stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.output = (this.output + text).slice(-KEPT_OUTPUT)));
    this.child.on('message', (message: ToParent) => this.receive(message));
    this.child.on('error', (cause) => this.end(toFileError('start', 'a process that reads data', cause)));
    this.exited = new Promise((resolve) => {
      this.child.once('close', (code: number | null, killedBy: NodeJS.Signals | null) => {
        this.end(this.explainExit(code, killedBy));
        resolve();
      });
    });
    signal?.addEventListener('abort', this.cancel);
  }

  request(request: unknown, limits: RequestLimits): Promise<unknown> {
    const reply = this.last.then(() => this.serve(request, limits));
    this.last = reply.catch(() => undefined);
    return reply;
  }

  async close(): Promise<void> {
    this.options.signal?.removeEventListener('abort', this.cancel);
    this.kill();
    await this.exited;
  }

  private async serve(request: unknown, { timeoutMs, onTimeout, subject }: RequestLimits): Promise<unknown> {
    // Why it was not started is told a little later.
    if (this.child.pid === undefined) await this.exited;
    if (this.ended !== undefined) throw this.ended;
    const timer = setTimeout(() => this.end(onTimeout()), timeoutMs);
    try {
      return await new Promise((resolve, reject) => {
        this.pending = { resolve, reject, subject };
        this.send({ kind: 'request', id: this.nextId++, request });
      });
    } finally {
      clearTimeout(timer);
      this.pending = undefined;
    }
  }

  private receive(message: ToParent): void {
    switch (message.kind) {
      case 'reply':
        this.pending?.resolve(message.reply);
        return;
      case 'failure':
        this.pending?.reject(new SecateurError(message.reason, message.message));
        return;
      case 'question':
        void this.answer(message.id, message.question);
    }
  }

  private async answer(id: number, question: unknown): Promise<void> {
    try {
      this.send({ kind: 'answer', id, answer: await this.options.answer?.(question as never) });
    } catch (error) {
      // The request has failed, and its process waits for an answer that will not come.
      this.end(error instanceof Error ? error : new Error(String(error)));
    }
  }

  private send(message: ToChild): void {
    // A process that is gone is told of by its end.
    this.child.send(message, () => undefined);
  }

  private readonly cancel = (): void =>
    this.end(new SecateurError('CANCELLED', 'The work was cancelled.', { cause: this.options.signal?.reason }));

  /** Fails the request that is served, and those that come. */
  private end(error: Error): void {
    this.ended ??= error;
    this.pending?.reject(this.ended);
    this.kill();
  }

  /** A process that was not started has no id: what Node would send the signal to is this process with its whole group, or any other. */
  private kill(): void {
    if (this.child.pid !== undefined) this.child.kill('SIGKILL');
  }

  private explainExit(code: number | null, killedBy: NodeJS.Signals | null): SecateurError {
    const subject = this.pending?.subject ?? 'The data';
    // V8 aborts when its heap is full, the kernel kills when there is no memory left.
    if (killedBy === 'SIGABRT' || killedBy === 'SIGKILL') {
      return new SecateurError(
        'RESOURCE_EXHAUSTED',
        `${subject}: reading it took more memory than there is, so the process that did was ended (${killedBy}). Give smaller data, or more memory.`,
      );
    }
    return new SecateurError('INTERNAL', `${subject}: the process that read it ended (${killedBy ?? code}).`, {
      cause: new Error(this.output),
    });
  }
}

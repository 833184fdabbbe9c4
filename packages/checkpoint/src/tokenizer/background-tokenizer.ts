import { Worker } from 'node:worker_threads';
import { SecateurError, throwIfCancelled, type ErrorReason } from '@secateur/core';
import type { EncodeOptions } from './tokenizer.js';

/** What the worker begins with. */
export interface TokenizeSetup {
  readonly directory: string;
  readonly allowedRoots?: readonly string[] | undefined;
}

export interface TokenizeRequest {
  readonly id: number;
  readonly texts: readonly string[];
  readonly options: EncodeOptions;
}

export interface TokenizeReply {
  readonly id: number;
  /** Of each text. */
  readonly ids?: readonly Int32Array[];
  readonly failure?: { readonly reason: ErrorReason; readonly message: string };
}

interface PendingTexts {
  readonly resolve: (ids: readonly Int32Array[]) => void;
  readonly reject: (error: Error) => void;
}

/** The same file whether this one runs compiled or as source. */
const WORKER = new URL('../../dist/tokenizer/tokenize-worker.js', import.meta.url);

/** A model's tokenizer on a thread of its own, so that long texts do not hold up the process. Must be closed. */
export class BackgroundTokenizer {
  private readonly worker: Worker;
  private readonly pending = new Map<number, PendingTexts>();
  private nextId = 0;
  private ended: Error | undefined;

  constructor(
    setup: TokenizeSetup,
    private readonly signal?: AbortSignal,
  ) {
    throwIfCancelled(signal);
    // Without the options of this process: what they load (such as tracing) belongs to it alone.
    this.worker = new Worker(WORKER, { workerData: setup, execArgv: [] });
    this.worker.on('message', this.settle);
    this.worker.on('error', (cause) => this.end(new SecateurError('INTERNAL', 'The tokenizer thread failed.', { cause })));
    this.worker.on('exit', () => this.end(new SecateurError('INTERNAL', 'The tokenizer thread ended before its work was done.')));
    signal?.addEventListener('abort', this.cancel);
  }

  /** Token ids of a text with the special tokens that the model expects around it. */
  async encode(text: string): Promise<Int32Array> {
    const [ids = new Int32Array()] = await this.encodeAll([text]);
    return ids;
  }

  /** The same of many texts at once, with or without special tokens. */
  encodeAll(texts: readonly string[], options: EncodeOptions = {}): Promise<readonly Int32Array[]> {
    return new Promise((resolve, reject) => {
      if (this.ended !== undefined) {
        reject(this.ended);
        return;
      }
      const id = this.nextId++;
      this.pending.set(id, { resolve, reject });
      this.worker.postMessage({ id, texts, options } satisfies TokenizeRequest);
    });
  }

  async close(): Promise<void> {
    this.signal?.removeEventListener('abort', this.cancel);
    await this.worker.terminate();
  }

  private readonly settle = ({ id, ids, failure }: TokenizeReply): void => {
    const texts = this.pending.get(id);
    this.pending.delete(id);
    if (ids !== undefined) texts?.resolve(ids);
    else if (failure !== undefined) texts?.reject(new SecateurError(failure.reason, failure.message));
  };

  private readonly cancel = (): void => {
    this.end(new SecateurError('CANCELLED', 'The work was cancelled.', { cause: this.signal?.reason }));
    void this.worker.terminate();
  };

  private readonly end = (error: Error): void => {
    this.ended ??= error;
    for (const { reject } of this.pending.values()) reject(this.ended);
    this.pending.clear();
  };
}

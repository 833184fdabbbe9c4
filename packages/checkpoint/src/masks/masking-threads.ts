import { availableParallelism } from 'node:os';
import { SecateurError } from '@secateur/core';
import Tinypool from 'tinypool';
import { requireMaskShape } from './apply-mask.js';
import type { MaskedWeights, MaskingTask } from './mask-weights.js';

/** The same file whether this one runs compiled or as source. */
const MODULE = new URL('../../dist/masks/mask-weights.js', import.meta.url);
/** Each has a whole tensor in memory. */
const MOST_THREADS = 4;

/** Masks and digests weights on threads of their own, so that this one can serve others meanwhile. They start with the first tasks. Must be closed. */
export class MaskingThreads {
  /** How many there may be. */
  readonly count = Math.min(MOST_THREADS, availableParallelism());
  private pool: Tinypool | undefined;
  private isClosed = false;

  /** `task.weights` belong to a thread from then on, and come back masked; they must fill their buffer. */
  async mask(task: MaskingTask): Promise<MaskedWeights> {
    requireMaskShape(task.name, task.weights, task.shape, task.mask);
    // Its weights may have been read while others failed; a thread that begins now would never end.
    if (this.isClosed) throw new SecateurError('CANCELLED', `${task.name} is not masked any more.`);
    this.pool ??= startThreads(this.count);
    try {
      return (await this.pool.run(task, { transferList: [task.weights.buffer] })) as MaskedWeights;
    } catch (cause) {
      throw new SecateurError('INTERNAL', `${task.name}: its weights could not be masked: ${String(cause)}`, { cause });
    }
  }

  async close(): Promise<void> {
    this.isClosed = true;
    await this.pool?.destroy();
  }
}

function startThreads(count: number): Tinypool {
  // The options of this process, such as tracing, belong to it alone.
  const { NODE_OPTIONS: _ofThisProcess, ...env } = process.env;
  return new Tinypool({ filename: MODULE.href, minThreads: count, maxThreads: count, env: env as Record<string, string>, execArgv: [] });
}

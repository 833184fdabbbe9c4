import { availableParallelism } from 'node:os';
import { SecateurError } from '@secateur/core';
import { WorkerThreads } from '../threads/worker-threads.js';
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
  private threads: WorkerThreads<MaskingTask, MaskedWeights> | undefined;
  private isClosed = false;

  /** `task.weights` belong to a thread from then on, and come back masked; they must fill their buffer. */
  async mask(task: MaskingTask): Promise<MaskedWeights> {
    requireMaskShape(task.name, task.weights, task.shape, task.mask);
    // Its weights may have been read while others failed; a thread that begins now would never end.
    if (this.isClosed) throw new SecateurError('CANCELLED', `${task.name} is not masked any more.`);
    this.threads ??= new WorkerThreads(MODULE, this.count);
    try {
      return await this.threads.run(task, [task.weights.buffer]);
    } catch (cause) {
      throw new SecateurError('INTERNAL', `${task.name}: its weights could not be masked: ${String(cause)}`, { cause });
    }
  }

  async close(): Promise<void> {
    this.isClosed = true;
    await this.threads?.close();
  }
}

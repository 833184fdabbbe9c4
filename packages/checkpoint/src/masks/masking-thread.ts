import { SecateurError } from '@secateur/core';
import Tinypool from 'tinypool';
import { requireMaskShape } from './apply-mask.js';
import type { MaskedWeights, MaskingTask } from './mask-weights.js';

/** The same file whether this one runs compiled or as source. */
const MODULE = new URL('../../dist/masks/mask-weights.js', import.meta.url);

/**
 * Masks and digests weights on a thread of its own, so that this one can serve others meanwhile. One task runs at a time. Starts with the first
 * task. Must be closed.
 */
export class MaskingThread {
  private pool: Tinypool | undefined;

  /** `task.weights` belong to the thread from then on, and come back masked; they must fill their buffer. */
  async mask(task: MaskingTask): Promise<MaskedWeights> {
    requireMaskShape(task.name, task.weights, task.shape, task.mask);
    this.pool ??= startThread();
    try {
      return (await this.pool.run(task, { transferList: [task.weights.buffer] })) as MaskedWeights;
    } catch (cause) {
      throw new SecateurError('INTERNAL', `${task.name}: its weights could not be masked: ${String(cause)}`, { cause });
    }
  }

  async close(): Promise<void> {
    await this.pool?.destroy();
  }
}

function startThread(): Tinypool {
  // The options of this process, such as tracing, belong to it alone.
  const { NODE_OPTIONS: _ofThisProcess, ...env } = process.env;
  return new Tinypool({ filename: MODULE.href, minThreads: 1, maxThreads: 1, env: env as Record<string, string>, execArgv: [] });
}

import { setTimeout as sleep } from 'node:timers/promises';
import { backoffMs, SecateurError, throwIfCancelled } from '@secateur/core';
import type { Channel } from '@secateur/rpc';

const FIRST_BACKOFF_MS = 200;
const LONGEST_BACKOFF_MS = 5_000;

/** How long a service may fail to answer a caller who asks again and again. */
export class Absence {
  private failures = 0;
  private sinceMs = 0;

  constructor(
    private readonly channel: Channel,
    private readonly timeoutMs: number,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /** The service has answered. */
  end(): void {
    this.failures = 0;
  }

  /** Resolves when the call that failed is to be made again. Throws when that is no use, or the service has not answered for too long. */
  async endure(error: unknown): Promise<void> {
    if (!(error instanceof SecateurError && mayPass(error))) throw error;
    this.failures += 1;
    if (this.failures === 1) this.sinceMs = performance.now();
    if (this.leftMs() <= 0) throw error;
    await this.pause(Math.min(backoffMs(this.failures, FIRST_BACKOFF_MS, LONGEST_BACKOFF_MS), this.leftMs()));
    const leftMs = Math.ceil(this.leftMs());
    if (leftMs <= 0) throw error;
    // That the service can be reached does not tell that it answers, so this alone would resolve again and again at once.
    await this.channel.waitForReady(leftMs, this.signal);
  }

  private leftMs(): number {
    return this.sinceMs + this.timeoutMs - performance.now();
  }

  private async pause(durationMs: number): Promise<void> {
    const { signal } = this;
    await sleep(durationMs, undefined, signal && { signal }).catch(() => throwIfCancelled(signal));
  }
}

/** Of what is RESOURCE_EXHAUSTED, only the limit of calls per second passes by itself. */
function mayPass({ reason, metadata }: SecateurError): boolean {
  return reason === 'UNAVAILABLE' || reason === 'DEADLINE_EXCEEDED' || (reason === 'RESOURCE_EXHAUSTED' && 'callsPerSecond' in metadata);
}

import { SecateurError } from '@secateur/core';

/** Why the work on a job is to stop. */
export type StopReason = 'pause' | 'cancel' | 'shutdown';

/**
 * This process's right to run a job. It trusts the lease no longer than it was renewed for, by a clock that knows no jumps: a process that
 * was frozen, or cannot reach the store, stops by itself before anybody else begins.
 */
export class JobLease {
  private readonly controller = new AbortController();
  private heldUntilMs: number;
  private lostBy: SecateurError | undefined;

  constructor(
    readonly jobId: string,
    /** Grows with every lease of the job. */
    readonly token: number,
    private readonly durationMs: number,
    requestedAtMs: number,
  ) {
    this.heldUntilMs = requestedAtMs + durationMs;
  }

  /** Aborts when the work is to stop; its reason is a StopReason, or the error by which the lease was lost. */
  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** Whether it is time to renew: early enough that two attempts may fail. */
  isDue(nowMs: number): boolean {
    return nowMs > this.heldUntilMs - (this.durationMs * 2) / 3;
  }

  /** Lasts again from when the renewal was asked for. */
  renewed(requestedAtMs: number): void {
    this.heldUntilMs = requestedAtMs + this.durationMs;
  }

  /** Throws LEASE_LOST when the lease is over: before anything that others would see. */
  assertHeld(): void {
    this.loseIfOver();
    if (this.lostBy !== undefined) throw this.lostBy;
  }

  get isLost(): boolean {
    return performance.now() >= this.heldUntilMs;
  }

  /** Stops the work when the lease is over. */
  loseIfOver(): void {
    if (!this.isLost || this.lostBy !== undefined) return;
    this.lose(new SecateurError('LEASE_LOST', `Job ${this.jobId} is not run here any more: its lease was not renewed in time.`));
  }

  stop(reason: StopReason): void {
    this.controller.abort(reason);
  }

  lose(error: SecateurError): void {
    this.heldUntilMs = 0;
    this.lostBy ??= error;
    // What is being stopped for another reason stays so.
    this.controller.abort(error);
  }
}

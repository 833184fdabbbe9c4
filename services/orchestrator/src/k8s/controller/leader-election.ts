import { setTimeout as sleep } from 'node:timers/promises';
import type { V1Lease } from '@kubernetes/client-node';
import type { Logger } from 'pino';
import { CONFLICT, httpStatusOf, loadConfig, NOT_FOUND, ownNamespace, withTimeout } from '../kubernetes-client.js';

/** Shares of the lease's duration, as Kubernetes' own controllers have them: 15 s, 10 s, 2 s. */
const DEADLINE_SHARE = 2 / 3;
const RETRY_SHARE = 2 / 15;

export interface ElectionOptions {
  /** Name of the Lease in the namespace of the pod. */
  readonly lease: string;
  /** Who stands for election; no other process has that name. */
  readonly identity: string;
  /** Another one takes over when the leader has not been heard of for so long. */
  readonly durationMs: number;
  readonly logger: Logger;
}

/**
 * Does the work while this process holds a Lease, until the signal aborts. The work is told to stop when the Lease could not be renewed for two
 * thirds of its duration, before anybody else takes it. A process that was frozen may still write something afterwards: what it writes has to
 * name the version that it has seen, so that the API server refuses it once the next leader has written.
 */
export async function lead(options: ElectionOptions, work: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> {
  const lease = new LeaderLease(options);
  const { durationMs, logger } = options;
  while (!signal.aborted) {
    const askedAtMs = performance.now();
    try {
      if (await withTimeout(lease.hold(), durationMs)) await leadFor(lease, options, askedAtMs, work, signal);
    } catch (error) {
      if (!isStopped(signal)) logger.warn({ err: error, lease: options.lease }, 'the lease of the controller cannot be asked for');
    }
    await pause(durationMs * RETRY_SHARE * (0.5 + Math.random() / 2), signal);
  }
}

/** One term: until the Lease is lost or the signal aborts. */
async function leadFor(
  lease: LeaderLease,
  { durationMs, logger, identity }: ElectionOptions,
  askedAtMs: number,
  work: (signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const term = new AbortController();
  const stop = AbortSignal.any([signal, term.signal]);
  let heldUntilMs = askedAtMs + durationMs * DEADLINE_SHARE;
  logger.info({ identity }, 'leads the controllers');
  const working = work(stop);
  working.catch(() => term.abort());
  while (!isStopped(stop)) {
    await pause(durationMs * RETRY_SHARE, stop);
    if (isStopped(stop)) break;
    const renewalMs = performance.now();
    try {
      const isHeld = await withTimeout(lease.hold(), Math.max(0, heldUntilMs - renewalMs));
      if (isHeld) heldUntilMs = renewalMs + durationMs * DEADLINE_SHARE;
      else term.abort();
    } catch (error) {
      logger.warn({ err: error }, 'the lease of the controller was not renewed');
      if (performance.now() >= heldUntilMs) term.abort();
    }
  }
  await working;
  if (term.signal.aborted) logger.warn({ identity }, 'no longer leads the controllers');
  else await withTimeout(lease.release(), durationMs * RETRY_SHARE).catch(() => undefined);
}

class LeaderLease {
  /** The version of somebody else's lease, and since when it has been the same by the clock of this process. */
  private observed: { readonly version: string | undefined; readonly sinceMs: number } | undefined;

  constructor(private readonly options: ElectionOptions) {}

  /** Takes or renews the lease; false where it is another one's. */
  async hold(): Promise<boolean> {
    const { api, namespace } = await this.open();
    const { identity, lease: name, durationMs } = this.options;
    const { V1Lease, V1LeaseSpec, V1MicroTime, V1ObjectMeta } = await import('@kubernetes/client-node');
    const present = await this.read();
    if (present !== undefined && !this.mayBeTaken(present)) return false;
    const before = present?.spec;
    const isSame = before?.holderIdentity === identity;
    const now = new V1MicroTime();
    const body = present ?? Object.assign(new V1Lease(), { metadata: Object.assign(new V1ObjectMeta(), { name, namespace }) });
    body.spec = Object.assign(new V1LeaseSpec(), {
      holderIdentity: identity,
      leaseDurationSeconds: Math.ceil(durationMs / 1000),
      acquireTime: (isSame ? before.acquireTime : undefined) ?? now,
      renewTime: now,
      leaseTransitions: (before?.leaseTransitions ?? 0) + (present === undefined || isSame ? 0 : 1),
    });
    try {
      // The version in the metadata has the server refuse it when another one was faster.
      if (present === undefined) await api.createNamespacedLease({ namespace, body });
      else await api.replaceNamespacedLease({ name, namespace, body });
      return true;
    } catch (error) {
      if (httpStatusOf(error) === CONFLICT) return false;
      throw error;
    }
  }

  /** Lets another one lead at once. */
  async release(): Promise<void> {
    const { api, namespace } = await this.open();
    const present = await this.read();
    if (present?.spec?.holderIdentity !== this.options.identity) return;
    present.spec.holderIdentity = '';
    present.spec.leaseDurationSeconds = 1;
    await api.replaceNamespacedLease({ name: this.options.lease, namespace, body: present });
  }

  /** Clocks of machines differ, so only what this process has seen for the whole duration counts as over. */
  private mayBeTaken({ metadata, spec }: V1Lease): boolean {
    const holderIdentity = spec?.holderIdentity ?? '';
    const leaseDurationSeconds = spec?.leaseDurationSeconds ?? 0;
    if (holderIdentity === '' || holderIdentity === this.options.identity) return true;
    const nowMs = performance.now();
    const version = metadata?.resourceVersion;
    if (this.observed?.version !== version) this.observed = { version, sinceMs: nowMs };
    return nowMs - (this.observed?.sinceMs ?? nowMs) > leaseDurationSeconds * 1000;
  }

  private async read(): Promise<V1Lease | undefined> {
    const { api, namespace } = await this.open();
    try {
      return await api.readNamespacedLease({ name: this.options.lease, namespace });
    } catch (error) {
      if (httpStatusOf(error) === NOT_FOUND) return undefined;
      throw error;
    }
  }

  private async open() {
    const { CoordinationV1Api } = await import('@kubernetes/client-node');
    const config = await loadConfig();
    return { api: config.makeApiClient(CoordinationV1Api), namespace: ownNamespace(config) };
  }
}

function isStopped(signal: AbortSignal): boolean {
  return signal.aborted;
}

async function pause(forMs: number, signal: AbortSignal): Promise<void> {
  await sleep(forMs, undefined, { signal, ref: false }).catch(() => undefined);
}

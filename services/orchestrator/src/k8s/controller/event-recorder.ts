import { setTimeout as sleep } from 'node:timers/promises';
import type { EventsV1Event, EventsV1EventSeries } from '@kubernetes/client-node';
import type { Logger } from 'pino';
import { CONFLICT, httpStatusOf, loadConfig, NOT_FOUND, withTimeout } from '../kubernetes-client.js';
import type { CountedEvent } from './event-series.js';
import { EVENT_KINDS } from './prune-job-events.js';
import { GROUP, KIND, VERSION, type Identity } from './prune-job.js';
import { WorkQueue } from './work-queue.js';

const CONTROLLER = `${GROUP}/controller`;
/** Limit of Kubernetes. */
const MAXIMUM_INSTANCE = 128;
/** Beyond that the API server is not waited for, and events are lost. */
const MAXIMUM_WAITING = 1_000;
const WRITE_TIMEOUT_MS = 10_000;
/** Between two writes, of whatever event. */
const PAUSE_MS = 100;
/** Between two writes of one event that happens again and again. */
const SERIES_EVERY_MS = 10_000;
/** An API server that fails so often is not asked for that event again; it takes half a minute. */
const MAXIMUM_TRIES = 8;
const TOO_MANY_REQUESTS = 429;
const SERVER_ERROR = 500;

export interface EventRecorderOptions {
  /** Name of the orchestrator that tells. */
  readonly identity: string;
  readonly logger: Logger;
}

type Target = Pick<Identity, 'namespace' | 'name' | 'uid'>;

interface Waiting {
  readonly object: Target;
  readonly event: CountedEvent;
  tries: number;
}

/**
 * Writes Events of PruneJobs, one after the other and not faster than the API server should be asked. Who tells never waits and never fails for
 * it: what cannot be written is tried again for a while and then left out, which the log tells.
 */
export class EventRecorder {
  /** By namespace and name of the event: what happens again while it waits is written once. */
  private readonly waiting = new Map<string, Waiting>();
  /** When an event was written, for as long as it must not be written again. */
  private readonly writtenAtMs = new Map<string, number>();
  private readonly queue: WorkQueue;

  constructor(
    private readonly options: EventRecorderOptions,
    private readonly signal: AbortSignal,
  ) {
    this.queue = new WorkQueue({
      workers: 1,
      process: (key) => this.write(key),
      onProblem: (key, error) =>
        options.logger.debug({ event: key, err: error }, 'an event of a PruneJob was not written; it is tried again'),
    });
    // What is being written may end by itself.
    signal.addEventListener('abort', () => void this.queue.stop(), { once: true });
  }

  record(object: Target, event: CountedEvent): void {
    const key = `${object.namespace}/${event.name}`;
    if (this.waiting.size >= MAXIMUM_WAITING && !this.waiting.has(key)) {
      this.options.logger.warn({ event: key, reason: event.reason }, 'an event of a PruneJob is left out: too many wait to be written');
      return;
    }
    this.waiting.set(key, { object, event, tries: 0 });
    this.queue.add(key);
  }

  /** Milliseconds after which the event is to be written, where that is not yet; throws where it is to be tried again. */
  private async write(key: string): Promise<number | undefined> {
    const waiting = this.waiting.get(key);
    if (waiting === undefined) return undefined;
    const now = performance.now();
    for (const [written, atMs] of this.writtenAtMs) if (now - atMs >= SERIES_EVERY_MS) this.writtenAtMs.delete(written);
    const writtenAtMs = this.writtenAtMs.get(key);
    if (writtenAtMs !== undefined) return writtenAtMs + SERIES_EVERY_MS - now;
    try {
      await this.send(waiting);
      this.writtenAtMs.set(key, performance.now());
    } catch (error) {
      waiting.tries += 1;
      if (isPassing(error) && waiting.tries < MAXIMUM_TRIES) throw error;
      this.options.logger.warn({ event: key, reason: waiting.event.reason, err: error }, 'an event of a PruneJob is left out');
    }
    // Unless it happened again meanwhile.
    if (this.waiting.get(key) === waiting) this.waiting.delete(key);
    await sleep(PAUSE_MS, undefined, { signal: this.signal, ref: false }).catch(() => undefined);
    return undefined;
  }

  /** An event that is there was written before, perhaps by another orchestrator: all that may change is how often it happened. */
  private async send({ object, event }: Waiting): Promise<void> {
    const { EventsV1Api, PatchStrategy, setHeaderOptions } = await import('@kubernetes/client-node');
    const api = (await loadConfig()).makeApiClient(EventsV1Api);
    const { namespace } = object;
    const body = await this.bodyOf(object, event);
    const create = () => withTimeout(api.createNamespacedEvent({ namespace, body }), WRITE_TIMEOUT_MS);
    const { series } = body;
    if (series === undefined) {
      await unless(CONFLICT, create());
      return;
    }
    const options = setHeaderOptions('Content-Type', PatchStrategy.MergePatch);
    const patched = withTimeout(api.patchNamespacedEvent({ namespace, name: event.name, body: { series } }, options), WRITE_TIMEOUT_MS);
    // Its time to live may be over.
    if ((await unless(NOT_FOUND, patched)) === undefined) await create();
  }

  private async bodyOf({ namespace, name, uid }: Target, event: CountedEvent): Promise<EventsV1Event> {
    const { EventsV1Event, V1MicroTime, V1ObjectMeta, V1ObjectReference } = await import('@kubernetes/client-node');
    const { type, action } = EVENT_KINDS[event.reason];
    const series = await seriesOf(event);
    return Object.assign(new EventsV1Event(), {
      metadata: Object.assign(new V1ObjectMeta(), { name: event.name, namespace }),
      eventTime: new V1MicroTime(event.time),
      regarding: Object.assign(new V1ObjectReference(), { apiVersion: `${GROUP}/${VERSION}`, kind: KIND, namespace, name, uid }),
      type,
      action,
      reason: event.reason,
      note: event.note,
      reportingController: CONTROLLER,
      reportingInstance: this.options.identity.slice(0, MAXIMUM_INSTANCE),
      ...(series === undefined ? {} : { series }),
    });
  }
}

/** Kubernetes counts from 2. */
async function seriesOf({ count, lastTime }: CountedEvent): Promise<EventsV1EventSeries | undefined> {
  if (count < 2) return undefined;
  const { EventsV1EventSeries, V1MicroTime } = await import('@kubernetes/client-node');
  return Object.assign(new EventsV1EventSeries(), { count, lastObservedTime: new V1MicroTime(lastTime) });
}

/** What a call gives; undefined where it is answered with that status. */
async function unless<Value>(status: number, call: Promise<Value>): Promise<Value | undefined> {
  try {
    return await call;
  } catch (error) {
    if (httpStatusOf(error) === status) return undefined;
    throw error;
  }
}

/** Whether the same may succeed later: no answer, or one of a server that has too much to do. */
function isPassing(error: unknown): boolean {
  const status = httpStatusOf(error);
  return typeof status !== 'number' || status === TOO_MANY_REQUESTS || status >= SERVER_ERROR;
}

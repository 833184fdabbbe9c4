import { setTimeout as sleep } from 'node:timers/promises';
import type { KubeConfig, KubernetesListObject, KubernetesObject } from '@kubernetes/client-node';
import { backoffMs } from '@secateur/core';
import { httpStatusOf, loadConfig, withTimeout } from './kubernetes-client.js';

/** The server ends a watch after this time. */
const WATCH_SECONDS = 240;
/** A watch that lasts longer than that is a connection that died unseen. */
const WATCH_LIMIT_MS = (WATCH_SECONDS + 30) * 1_000;
/** A watch that ends sooner counts as a failure, or it would be begun anew as fast as the server answers. */
const SHORTEST_WATCH_MS = 1_000;
const FIRST_BACKOFF_MS = 500;
const LONGEST_BACKOFF_MS = 30_000;
const GONE = 410;

export interface FollowedObjects<Item extends KubernetesObject> {
  /** Path of the collection, such as /apis/discovery.k8s.io/v1/namespaces/default/endpointslices. */
  readonly path: string;
  /** All objects when left out. */
  readonly labelSelector?: string;
  readonly list: (config: KubeConfig) => Promise<KubernetesListObject<Item>>;
  /** Gets all objects, first and after every change. */
  readonly onObjects: (objects: readonly Item[]) => void;
  readonly onProblem: (error: unknown) => void;
}

/**
 * Lists objects of the Kubernetes API and watches them from the version listed, until the signal aborts. A watch that ends is continued from
 * the last version seen; when the server no longer has that version (410 Gone), they are listed anew.
 */
export async function followObjects<Item extends KubernetesObject>(followed: FollowedObjects<Item>, signal: AbortSignal): Promise<void> {
  const { list, onObjects, onProblem } = followed;
  let objects = new Map<string, Item>();
  let version: string | undefined;
  let failures = 0;
  const isStopped = (): boolean => signal.aborted;
  const onEvent = (type: string, item: Item): void => {
    version = item.metadata?.resourceVersion ?? version;
    if (type === 'BOOKMARK' || isStopped()) return;
    if (type === 'DELETED') objects.delete(keyOf(item));
    else objects.set(keyOf(item), item);
    onObjects([...objects.values()]);
  };
  while (!isStopped()) {
    const startedMs = Date.now();
    try {
      const config = await loadConfig();
      if (version === undefined) {
        const { items, metadata } = await withTimeout(list(config));
        objects = new Map(items.map((item) => [keyOf(item), item]));
        version = metadata?.resourceVersion ?? '';
        if (!isStopped()) onObjects([...objects.values()]);
      }
      await watchOnce(config, followed, version, onEvent, signal);
      failures = Date.now() - startedMs < SHORTEST_WATCH_MS ? failures + 1 : 0;
    } catch (error) {
      if (httpStatusOf(error) === GONE) version = undefined;
      else if (!isStopped()) onProblem(error);
      failures = Date.now() - startedMs < SHORTEST_WATCH_MS ? failures + 1 : 1;
    }
    if (failures > 0)
      await sleep(backoffMs(failures, FIRST_BACKOFF_MS, LONGEST_BACKOFF_MS), undefined, { signal, ref: false }).catch(() => undefined);
  }
}

/** Resolves when the watch ends, and throws when the server ends it with an error. */
async function watchOnce<Item extends KubernetesObject>(
  config: KubeConfig,
  { path, labelSelector }: FollowedObjects<Item>,
  resourceVersion: string,
  onEvent: (type: string, item: Item) => void,
  signal: AbortSignal,
): Promise<void> {
  const { Watch } = await import('@kubernetes/client-node');
  const query = {
    ...(labelSelector === undefined ? {} : { labelSelector }),
    resourceVersion,
    allowWatchBookmarks: true,
    timeoutSeconds: WATCH_SECONDS,
  };
  // One that begins after it was given up ends too.
  const ended = new AbortController();
  const stop = AbortSignal.any([signal, ended.signal, AbortSignal.timeout(WATCH_LIMIT_MS)]);
  await new Promise<void>((resolve, reject) => {
    let failure: Error | undefined;
    const onMessage = (type: string, object: Item): void => {
      if (stop.aborted) return;
      if (type === 'ERROR') failure = new WatchError(object);
      else onEvent(type, object);
    };
    const onEnd = (error: unknown): void => {
      const reason = failure ?? (error as Error | null | undefined);
      if (reason === null || reason === undefined || stop.aborted) resolve();
      else reject(reason);
    };
    // The client waits for the beginning of the answer for ever, and gives nothing to end it by until it has come.
    const begun = new Watch(config).watch(path, query, onMessage, onEnd);
    begun.then((request) => {
      if (stop.aborted) request.abort();
      else stop.addEventListener('abort', () => request.abort(), { once: true });
    }, reject);
    stop.addEventListener('abort', () => resolve(), { once: true });
    withTimeout(begun).catch(reject);
  }).finally(() => ended.abort());
}

/** A status object that the server sent instead of a change. */
class WatchError extends Error {
  readonly code: unknown;

  constructor(status: object) {
    super('message' in status && typeof status.message === 'string' ? status.message : 'The server ended the watch.');
    this.code = 'code' in status ? status.code : undefined;
  }
}

/** NAMESPACE/NAME. */
export function keyOf({ metadata }: KubernetesObject): string {
  return `${metadata?.namespace ?? ''}/${metadata?.name ?? ''}`;
}

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { isDeepStrictEqual } from 'node:util';
import { problemsOfEvent, problemsOfEventChange } from './kubernetes-event-rules.js';

interface Metadata {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly generation: number;
  readonly creationTimestamp: string;
  readonly deletionTimestamp?: string;
  readonly finalizers?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
}

/** An object as the server holds it. */
export interface StoredObject {
  readonly metadata: Metadata;
  readonly spec?: unknown;
  readonly status?: unknown;
  readonly [field: string]: unknown;
}

/** An Event as the server holds it. */
export interface StoredEvent extends StoredObject {
  readonly regarding: Readonly<Record<string, string>>;
  readonly type: string;
  readonly reason: string;
  readonly note: string;
  readonly eventTime: string;
  readonly series?: { readonly count: number; readonly lastObservedTime: string };
}

/** What a caller sends: the server fills in the rest. */
type SentObject = Readonly<Record<string, unknown>> & { readonly metadata: Partial<Metadata> };

interface Kind {
  readonly kind: string;
  /** Whether the status is written by a path of its own, and the generation counts changes of the spec. */
  readonly hasStatus: boolean;
}

const EVENTS = 'events.k8s.io/v1/events';
const KINDS: Readonly<Record<string, Kind>> = {
  'discovery.k8s.io/v1/endpointslices': { kind: 'EndpointSlice', hasStatus: false },
  'coordination.k8s.io/v1/leases': { kind: 'Lease', hasStatus: false },
  'secateur.dev/v1alpha1/prunejobs': { kind: 'PruneJob', hasStatus: true },
  [EVENTS]: { kind: 'Event', hasStatus: false },
};

const PATH =
  /^\/apis\/(?<group>[\w.]+)\/(?<version>\w+)(?:\/namespaces\/(?<namespace>[\w-]+))?\/(?<plural>[a-z]+)(?:\/(?<name>[\w.-]+)(?:\/(?<part>status))?)?$/;

/** What a request names. */
interface Target {
  /** GROUP/VERSION/PLURAL. */
  readonly resource: string;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly part: 'object' | 'status';
}

interface Watcher extends Pick<Target, 'resource' | 'namespace'> {
  readonly response: ServerResponse;
  readonly labels: ReadonlyMap<string, string>;
}

interface Event extends Pick<Target, 'resource'> {
  readonly version: number;
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly object: StoredObject;
}

/** What has the server refuse a request. */
class Refusal extends Error {
  constructor(
    readonly code: number,
    message: string,
  ) {
    super(message);
  }
}

/**
 * An API server on loopback, over real HTTP, for the kinds above: get, list, watch, create, replace and JSON merge patch, with one counter of
 * versions for all objects, 409 for changes of another version or uid, a status that only its own path writes, generations, finalizers and
 * deletion timestamps as Kubernetes has them. It is not more than that: schemas and CEL rules are held elsewhere (tests/deploy), and there is
 * no admission, no access control beyond the token, no server-side apply, no pages of lists, no bookmarks, and only labels with `=` select.
 * Events are held to the rules of kubernetes-event-rules.ts; they stay for ever, and are not to be had as core/v1 Events.
 */
export class KubernetesApi implements AsyncDisposable {
  readonly requests: URL[] = [];
  /** Requests to change something, in order; code 0 where there was no answer. */
  readonly writes: { readonly request: string; readonly code: number; readonly atMs: number }[] = [];
  /** Statuses that the next requests are answered with. */
  readonly failures: number[] = [];
  /** What all writes of Events are answered with: a status, or nothing at all. */
  eventsAnswer: number | 'nothing' | undefined;
  private readonly watchers = new Set<Watcher>();
  /** By resource, namespace and name. */
  private readonly objects = new Map<string, StoredObject>();
  private events: Event[] = [];
  private version = 100;
  private oldest = 100;
  private goneAs: 'event' | 'status' = 'event';
  private readonly server = createServer((request, response) => void this.answer(request, response));
  private onRequest: (() => void) | undefined;

  static async start(): Promise<KubernetesApi> {
    const api = new KubernetesApi();
    api.server.listen(0, '127.0.0.1');
    await once(api.server, 'listening');
    return api;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** A file for KUBECONFIG. The client takes plain HTTP only where certificates are not checked. */
  get kubeconfig(): string {
    return JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'test', cluster: { server: this.url, 'insecure-skip-tls-verify': true } }],
      users: [{ name: 'test', user: { token: 'test' } }],
      contexts: [{ name: 'test', context: { cluster: 'test', user: 'test', namespace: 'prune' } }],
      'current-context': 'test',
    });
  }

  /** Sets a slice of the service `nodes`. One without endpoints has null, as the API server writes it. */
  setSlice(name: string, endpoints: readonly object[] | null): void {
    const target = sliceTarget(name);
    const present = this.objects.get(keyOf(target));
    const metadata = { ...present?.metadata, name, labels: { 'kubernetes.io/service-name': 'nodes' } };
    const slice = { metadata, addressType: 'IPv4', endpoints };
    if (present === undefined) this.create(target, slice);
    else this.replace(target, present, slice);
  }

  removeSlice(name: string): void {
    this.remove(sliceTarget(name));
  }

  /** As `kubectl create` does. */
  createPruneJob(name: string, spec: object): StoredObject {
    return this.create(pruneJobTarget(name), { metadata: { name }, spec });
  }

  /** As `kubectl patch --type merge` does. */
  patchPruneJob(name: string, patch: object): StoredObject {
    const target = pruneJobTarget(name);
    const present = this.find(target);
    return this.replace(target, present, merge(present, patch) as SentObject);
  }

  /** As `kubectl delete` does: it is there until its last finalizer is gone. */
  deletePruneJob(name: string): void {
    this.remove(pruneJobTarget(name));
  }

  pruneJob(name: string): StoredObject | undefined {
    return this.objects.get(keyOf(pruneJobTarget(name)));
  }

  /** The lease of that name. */
  lease(name: string): StoredObject | undefined {
    return this.objects.get(keyOf({ resource: 'coordination.k8s.io/v1/leases', namespace: 'prune', name }));
  }

  /** Events of a PruneJob, in the order they were written first. */
  eventsOf(name: string): StoredEvent[] {
    const events = [...this.objects].filter(([key]) => key.startsWith(`${EVENTS} `)).map(([, object]) => object as StoredEvent);
    return events.filter(({ regarding }) => regarding['name'] === name);
  }

  /** Ends all watches, as the server does from time to time. */
  endWatches(): void {
    for (const { response } of this.watchers) response.end();
    this.watchers.clear();
  }

  /** Forgets earlier changes: a watch from before is answered with 410 Gone, as an event or as the status of the answer. */
  forget(how: 'event' | 'status'): void {
    this.events = [];
    this.oldest = this.version;
    this.goneAs = how;
  }

  /** Resolves at the next request. */
  nextRequest(): Promise<void> {
    return new Promise((resolve) => {
      this.onRequest = resolve;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '', this.url);
    const method = request.method ?? '';
    this.requests.push(url);
    let code = 200;
    let answer: object | undefined;
    try {
      const body = await readBody(request);
      const failure = this.failures.shift();
      if (failure !== undefined) throw new Refusal(failure, 'as the test asks for');
      if (request.headers.authorization !== 'Bearer test') throw new Refusal(401, 'no token');
      if (method !== 'GET' && targetOf(url).resource === EVENTS && this.eventsAnswer !== undefined) {
        if (this.eventsAnswer === 'nothing') {
          this.writes.push({ request: `${method} ${url.pathname}`, code: 0, atMs: performance.now() });
          return;
        }
        throw new Refusal(this.eventsAnswer, 'as the test asks for');
      }
      answer = this.handle(method, url, request.headers['content-type'], body, response);
      if (method === 'POST') code = 201;
    } catch (error) {
      code = error instanceof Refusal ? error.code : 500;
      answer = { kind: 'Status', apiVersion: 'v1', status: 'Failure', code, message: String(error) };
    }
    if (method !== 'GET') this.writes.push({ request: `${method} ${url.pathname}`, code, atMs: performance.now() });
    if (answer !== undefined) response.writeHead(code, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
    const { onRequest } = this;
    this.onRequest = undefined;
    onRequest?.();
  }

  /** The answer; undefined for a watch, which goes on. */
  private handle(method: string, url: URL, type: string | undefined, body: string, response: ServerResponse): object | undefined {
    const target = targetOf(url);
    if (method === 'GET' && target.name === undefined) {
      const labels = labelsOf(url.searchParams.get('labelSelector'));
      if (url.searchParams.get('watch') !== 'true') return this.list(target, labels);
      this.watch({ ...target, labels, response }, Number(url.searchParams.get('resourceVersion')));
      return undefined;
    }
    if (method === 'POST') return this.create(target, JSON.parse(body) as SentObject);
    const present = this.find(target);
    switch (method) {
      case 'GET':
        return present;
      case 'PUT':
        return this.replace(target, present, JSON.parse(body) as SentObject);
      case 'PATCH':
        if (type !== 'application/merge-patch+json') throw new Refusal(415, `${type} is not taken`);
        return this.replace(target, present, merge(present, JSON.parse(body)) as SentObject);
      case 'DELETE':
        return this.remove(target);
      default:
        throw new Refusal(405, method);
    }
  }

  private list({ resource, namespace }: Target, labels: ReadonlyMap<string, string>): object {
    const items = [...this.objects]
      .filter(([key, object]) => key.startsWith(`${resource} `) && isWanted({ namespace, labels }, object))
      .map(([, object]) => object);
    return { kind: `${kindOf(resource).kind}List`, metadata: { resourceVersion: String(this.version) }, items };
  }

  private watch(watcher: Watcher, version: number): void {
    const { response } = watcher;
    const isGone = version < this.oldest;
    if (isGone && this.goneAs === 'status') throw new Refusal(410, 'too old resource version');
    response.writeHead(200, { 'content-type': 'application/json' });
    if (isGone) {
      response.end(`${JSON.stringify({ type: 'ERROR', object: { kind: 'Status', code: 410, message: 'too old resource version' } })}\n`);
      return;
    }
    response.flushHeaders();
    for (const event of this.events) if (event.version > version) send(watcher, event);
    this.watchers.add(watcher);
    response.on('close', () => this.watchers.delete(watcher));
  }

  private find(target: Target): StoredObject {
    const object = this.objects.get(keyOf(target));
    if (object === undefined) throw new Refusal(404, `${keyOf(target)} is not there`);
    return object;
  }

  private create(target: Target, { status: _sent, ...sent }: SentObject): StoredObject {
    const { name = '', labels, finalizers } = sent.metadata;
    const named = { ...target, name };
    const { namespace = '' } = target;
    if (target.resource === EVENTS) refuse(problemsOfEvent(sent, namespace));
    if (this.objects.has(keyOf(named))) throw new Refusal(409, `${keyOf(named)} is there`);
    return this.store('ADDED', named, {
      ...sent,
      metadata: {
        name,
        namespace,
        uid: randomUUID(),
        generation: 1,
        creationTimestamp: new Date().toISOString(),
        ...(labels === undefined ? {} : { labels }),
        ...(finalizers === undefined ? {} : { finalizers }),
      },
    });
  }

  /** Puts what was sent in place of an object: the status alone, or all but the status. */
  private replace(target: Target, present: StoredObject, sent: SentObject): StoredObject {
    const { uid, resourceVersion, finalizers = [], labels } = sent.metadata;
    const before = present.metadata;
    if (uid !== undefined && uid !== before.uid) throw new Refusal(409, 'another object had that name');
    if (resourceVersion !== undefined && resourceVersion !== before.resourceVersion) throw new Refusal(409, 'the object has been modified');
    if (target.part === 'status') {
      return isDeepStrictEqual(sent['status'], present.status)
        ? present
        : this.store('MODIFIED', target, { ...present, status: sent['status'] });
    }
    if (target.resource === EVENTS) refuse(problemsOfEventChange(present, sent));
    const { hasStatus } = kindOf(target.resource);
    if (before.deletionTimestamp !== undefined && finalizers.some((finalizer) => !(before.finalizers ?? []).includes(finalizer)))
      throw new Refusal(422, 'no new finalizers can be added if the object is being deleted');
    const isNewSpec = hasStatus && !isDeepStrictEqual(sent['spec'], present.spec);
    const metadata = {
      ...before,
      generation: before.generation + (isNewSpec ? 1 : 0),
      finalizers,
      ...(labels === undefined ? {} : { labels }),
    };
    const changed = { ...sent, ...(hasStatus ? { status: present.status } : {}), metadata };
    if (before.deletionTimestamp !== undefined && finalizers.length === 0) return this.store('DELETED', target, changed);
    return this.store('MODIFIED', target, changed);
  }

  private remove(target: Target): StoredObject {
    const present = this.find(target);
    const { finalizers = [], deletionTimestamp, generation } = present.metadata;
    if (finalizers.length === 0) return this.store('DELETED', target, present);
    if (deletionTimestamp !== undefined) return present;
    const metadata = { ...present.metadata, deletionTimestamp: new Date().toISOString(), generation: generation + 1 };
    return this.store('MODIFIED', target, { ...present, metadata });
  }

  private store(
    type: Event['type'],
    target: Target,
    object: { readonly metadata: object; readonly [field: string]: unknown },
  ): StoredObject {
    this.version += 1;
    const [group, version] = target.resource.split('/');
    const stored = {
      ...object,
      apiVersion: `${group}/${version}`,
      kind: kindOf(target.resource).kind,
      metadata: { ...object.metadata, resourceVersion: String(this.version) },
    } as unknown as StoredObject;
    if (type === 'DELETED') this.objects.delete(keyOf(target));
    else this.objects.set(keyOf(target), stored);
    const event = { version: this.version, type, resource: target.resource, object: stored };
    this.events.push(event);
    for (const watcher of this.watchers) send(watcher, event);
    return stored;
  }
}

function refuse(problems: readonly string[]): void {
  if (problems.length > 0) throw new Refusal(422, problems.join('; '));
}

function sliceTarget(name: string): Target {
  return { resource: 'discovery.k8s.io/v1/endpointslices', namespace: 'prune', name, part: 'object' };
}

function pruneJobTarget(name: string): Target {
  return { resource: 'secateur.dev/v1alpha1/prunejobs', namespace: 'prune', name, part: 'object' };
}

function targetOf({ pathname }: URL): Target {
  const { group, version, plural, namespace, name, part } = PATH.exec(pathname)?.groups ?? {};
  const resource = `${group}/${version}/${plural}`;
  kindOf(resource);
  return { resource, namespace, name, part: part === undefined ? 'object' : 'status' };
}

function kindOf(resource: string): Kind {
  const kind = KINDS[resource];
  if (kind === undefined) throw new Refusal(404, `the server has no ${resource}`);
  return kind;
}

function keyOf({ resource, namespace, name }: Pick<Target, 'resource' | 'namespace' | 'name'>): string {
  return `${resource} ${namespace}/${name}`;
}

function labelsOf(selector: string | null): ReadonlyMap<string, string> {
  const pairs = (selector ?? '').split(',').filter((pair) => pair !== '');
  return new Map(pairs.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]));
}

function isWanted({ namespace, labels }: Pick<Watcher, 'namespace' | 'labels'>, { metadata }: StoredObject): boolean {
  if (namespace !== undefined && metadata.namespace !== namespace) return false;
  return [...labels].every(([name, value]) => metadata.labels?.[name] === value);
}

function send(watcher: Watcher, { resource, type, object }: Event): void {
  if (watcher.resource === resource && isWanted(watcher, object)) watcher.response.write(`${JSON.stringify({ type, object })}\n`);
}

/** A JSON merge patch (RFC 7396). */
function merge(target: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
  const merged: Record<string, unknown> = typeof target === 'object' && target !== null && !Array.isArray(target) ? { ...target } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) Reflect.deleteProperty(merged, name);
    else merged[name] = merge(merged[name], value);
  }
  return merged;
}

async function readBody(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  return Buffer.concat(parts).toString();
}

import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

interface Slice {
  readonly metadata: { readonly name: string; readonly namespace: string; readonly resourceVersion: string };
  readonly addressType: string;
  readonly endpoints: readonly object[];
}

/** An API server on loopback, over real HTTP, that lists and watches the EndpointSlices of one service as Kubernetes does. */
export class KubernetesApi implements AsyncDisposable {
  readonly requests: URL[] = [];
  private readonly watchers = new Set<ServerResponse>();
  private readonly slices = new Map<string, Slice>();
  private events: { readonly version: number; readonly line: string }[] = [];
  private version = 100;
  private oldest = 100;
  private goneAs: 'event' | 'status' = 'event';
  /** Statuses that the next requests are answered with. */
  readonly failures: number[] = [];
  private readonly server = createServer((request, response) => this.answer(request, response));
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
      contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
      'current-context': 'test',
    });
  }

  setSlice(name: string, endpoints: readonly object[]): void {
    const type = this.slices.has(name) ? 'MODIFIED' : 'ADDED';
    this.version += 1;
    const metadata = { name, namespace: 'prune', resourceVersion: String(this.version) };
    const slice = { metadata, addressType: 'IPv4', endpoints };
    this.slices.set(name, slice);
    this.send(type, slice);
  }

  removeSlice(name: string): void {
    const slice = this.slices.get(name);
    if (slice === undefined) throw new Error(`There is no slice ${name}.`);
    this.slices.delete(name);
    this.version += 1;
    this.send('DELETED', { ...slice, metadata: { ...slice.metadata, resourceVersion: String(this.version) } });
  }

  /** Ends all watches, as the server does from time to time. */
  endWatches(): void {
    for (const watcher of this.watchers) watcher.end();
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

  private answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? '', this.url);
    this.requests.push(url);
    const onRequest = this.onRequest;
    this.onRequest = undefined;
    const failure = this.failures.shift();
    if (failure !== undefined) this.refuse(response, failure);
    else if (request.headers.authorization !== 'Bearer test') this.refuse(response, 401);
    else if (url.pathname !== '/apis/discovery.k8s.io/v1/namespaces/prune/endpointslices') this.refuse(response, 404);
    else if (url.searchParams.get('labelSelector') !== 'kubernetes.io/service-name=nodes') this.refuse(response, 400);
    else if (url.searchParams.get('watch') === 'true') this.watch(response, Number(url.searchParams.get('resourceVersion')));
    else {
      const list = { kind: 'EndpointSliceList', metadata: { resourceVersion: String(this.version) }, items: [...this.slices.values()] };
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(list));
    }
    onRequest?.();
  }

  private watch(response: ServerResponse, version: number): void {
    if (version < this.oldest && this.goneAs === 'status') {
      this.refuse(response, 410);
      return;
    }
    response.writeHead(200, { 'content-type': 'application/json' });
    if (version < this.oldest) {
      response.end(`${JSON.stringify({ type: 'ERROR', object: { kind: 'Status', code: 410, message: 'too old resource version' } })}\n`);
      return;
    }
    response.flushHeaders();
    for (const event of this.events) if (event.version > version) response.write(event.line);
    this.watchers.add(response);
    response.on('close', () => this.watchers.delete(response));
  }

  private send(type: string, object: Slice): void {
    const event = { version: this.version, line: `${JSON.stringify({ type, object })}\n` };
    this.events.push(event);
    for (const watcher of this.watchers) watcher.write(event.line);
  }

  private refuse(response: ServerResponse, code: number): void {
    response.writeHead(code, { 'content-type': 'application/json' }).end(JSON.stringify({ kind: 'Status', code }));
  }
}

import { SecateurError, VERSION, worksWith } from '@secateur/core';
import { checkHealth, connect, watchHealth, type Channel, type ServiceClient, type TlsCredentials } from '@secateur/rpc';
import { KernelServiceDefinition, type DescribeNodeResponse } from '@secateur/proto/kernel_service';
import type { Node } from '@secateur/proto/pruning_service';
import { TraceServiceDefinition } from '@secateur/proto/trace_service';
import type { Logger } from 'pino';
import type { NodeDiscovery } from './node-discovery.js';

const POLL_EVERY_MS = 1_000;
const POLL_TIMEOUT_MS = 5_000;
const RETRY_AFTER_MS = 200;
/** Every call needs a deadline; a watch that reaches it is begun anew. */
const WATCH_TIMEOUT_MS = 3_600_000;

/** A kernel node and what was last seen of it. */
export class PoolNode {
  readonly channel: Channel;
  private bulkChannel: Channel | undefined;
  readonly kernel: ServiceClient<KernelServiceDefinition>;
  readonly trace: ServiceClient<TraceServiceDefinition>;
  description: DescribeNodeResponse | undefined;
  healthy = false;
  reason = 'not reached yet';
  /** Whether it has been asked for its health at least once. */
  asked = false;
  private draining = false;
  private retired = false;
  private sessions = 0;
  private watching = false;
  private readonly end = new AbortController();

  constructor(
    readonly address: string,
    private readonly tls: TlsCredentials | undefined,
  ) {
    this.channel = connect(address, { kind: 'control', tls });
    this.kernel = this.channel.client(KernelServiceDefinition);
    this.trace = this.channel.client(TraceServiceDefinition);
  }

  /** For what the node's TensorService serves. */
  get bulk(): Channel {
    return (this.bulkChannel ??= connect(this.address, { kind: 'bulk', tls: this.tls }));
  }

  /** Name for people: what the node calls itself, or its address. */
  get name(): string {
    return this.description?.name ?? this.address;
  }

  /** Whether it answers but must get no new work: it drains, or is no node of this cluster any more. */
  get leaving(): boolean {
    return this.draining || this.retired;
  }

  async poll(): Promise<void> {
    try {
      const serving = await checkHealth(this.channel, KernelServiceDefinition.fullName, POLL_TIMEOUT_MS);
      if (serving && !this.healthy) await this.describe();
      if (this.retired) return;
      const version = this.description?.engine?.version ?? '';
      if (serving && !worksWith(VERSION, version)) {
        this.healthy = false;
        this.reason = `is of version ${version || 'unknown'}, which cannot work with this orchestrator's ${VERSION}: both must be of the same MAJOR.MINOR`;
        return;
      }
      this.setServing(serving);
      void this.watch();
    } catch (error) {
      this.healthy = false;
      this.reason = error instanceof Error ? error.message : String(error);
    } finally {
      this.asked = true;
    }
  }

  /** Asks the node what it can do and how busy it is. */
  async describe(): Promise<void> {
    this.description = await this.kernel.describeNode({}, { timeoutMs: POLL_TIMEOUT_MS });
  }

  toMessage(): Node {
    return { address: this.address, healthy: this.healthy, reason: this.reason, description: this.description };
  }

  /** A session is open on the node, which can be reached until it is released. */
  retain(): void {
    this.sessions += 1;
  }

  release(): void {
    this.sessions -= 1;
    this.closeWhenUnused();
  }

  /** The node gets no new work from now on; what runs on it may end. */
  retire(): void {
    this.retired = true;
    this.healthy = false;
    this.reason = 'no longer in the cluster';
    this.closeWhenUnused();
  }

  close(): void {
    this.end.abort();
    this.channel.close();
    this.bulkChannel?.close();
  }

  private setServing(serving: boolean): void {
    this.healthy = serving;
    this.draining = !serving;
    this.reason = serving ? '' : 'draining';
  }

  /** Hears at once that the node begins to drain; by polls alone it would get work for another second. */
  private async watch(): Promise<void> {
    if (this.watching) return;
    this.watching = true;
    try {
      const options = { timeoutMs: WATCH_TIMEOUT_MS, signal: this.end.signal };
      for await (const serving of watchHealth(this.channel, KernelServiceDefinition.fullName, options)) {
        if (!serving && !this.retired) this.setServing(false);
      }
    } catch {
      // Polls tell why a node does not answer, and watch it again when it does.
    } finally {
      this.watching = false;
    }
  }

  private closeWhenUnused(): void {
    if (this.retired && this.sessions === 0) this.close();
  }
}

/** The nodes this orchestrator may use, as discoveries tell, polled for their health. */
export class NodePool {
  private readonly byAddress = new Map<string, PoolNode>();
  private readonly reported = new Map<NodeDiscovery, readonly string[]>();
  /** Whether a node was healthy when that was last written to the log. */
  private readonly logged = new WeakMap<PoolNode, boolean>();
  private readonly end = new AbortController();
  private timer: NodeJS.Timeout | undefined;
  private polling: Promise<void> = Promise.resolve();

  constructor(
    private readonly discoveries: readonly NodeDiscovery[],
    private readonly logger: Logger,
    private readonly tls: TlsCredentials | undefined,
  ) {}

  start(): void {
    for (const discovery of this.discoveries) {
      discovery.start((addresses) => {
        this.reported.set(discovery, addresses);
        this.update(discovery);
      }, this.end.signal);
    }
    this.schedule(0);
  }

  get nodes(): readonly PoolNode[] {
    return [...this.byAddress.values()];
  }

  get healthy(): readonly PoolNode[] {
    return this.nodes.filter((node) => node.healthy);
  }

  /**
   * Waits until `enough` nodes, and at least one, are healthy, or at least one is and no other can be expected at once (all have been asked and did not
   * answer), or the time is over; returns the healthy ones.
   */
  async settle(enough: number, timeoutMs: number, signal: AbortSignal): Promise<readonly PoolNode[]> {
    const until = performance.now() + timeoutMs;
    const settled = (): boolean =>
      this.healthy.length >= Math.max(1, enough) || (this.healthy.length > 0 && this.nodes.every((node) => node.asked));
    while (!settled() && performance.now() < until && !signal.aborted) {
      await this.pollAll();
      if (!settled()) await new Promise((resolve) => setTimeout(resolve, RETRY_AFTER_MS));
    }
    return this.healthy;
  }

  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.end.abort();
    for (const node of this.nodes) node.close();
  }

  private update(discovery: NodeDiscovery): void {
    if (this.end.signal.aborted) return;
    const addresses = new Set([...this.reported.values()].flat());
    for (const [address, node] of this.byAddress) {
      if (addresses.has(address)) continue;
      this.byAddress.delete(address);
      node.retire();
      this.logger.info({ node: node.name, address, discovery: discovery.name }, 'a node has left');
    }
    for (const address of addresses) {
      if (this.byAddress.has(address)) continue;
      this.byAddress.set(address, new PoolNode(address, this.tls));
      this.logger.info({ address, discovery: discovery.name }, 'a node is known');
    }
  }

  private schedule(delayMs: number): void {
    this.timer = setTimeout(() => {
      void this.pollAll().then(() => {
        if (this.timer !== undefined) this.schedule(POLL_EVERY_MS);
      });
    }, delayMs);
    this.timer.unref();
  }

  private pollAll(): Promise<void> {
    this.polling = this.polling.then(async () => {
      await Promise.all(
        this.nodes.map(async (node) => {
          await node.poll();
          if (node.healthy !== (this.logged.get(node) ?? false)) {
            this.logged.set(node, node.healthy);
            this.logger.info({ node: node.name, address: node.address, healthy: node.healthy, reason: node.reason }, 'node health changed');
          }
        }),
      );
    });
    return this.polling;
  }
}

/** In the metadata of an error: address of the node whose answer was wrong. */
export const WRONG_NODE = 'wrongNode';

/** Whether an error says that a node answered what cannot be right: asking it again is of no use. */
export function isWrongAnswer(error: unknown): boolean {
  return error instanceof SecateurError && error.metadata[WRONG_NODE] !== undefined;
}

/** Whether an error says that a node, not the work, is at fault: the work can go on elsewhere. */
export function isNodeLoss(error: unknown): boolean {
  return (
    error instanceof SecateurError &&
    (error.reason === 'UNAVAILABLE' || error.reason === 'DEADLINE_EXCEEDED' || error.reason === 'NOT_FOUND' || isWrongAnswer(error))
  );
}

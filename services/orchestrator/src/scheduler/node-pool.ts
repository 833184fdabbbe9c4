import { SecateurError } from '@secateur/core';
import { checkHealth, connect, type Channel, type ServiceClient, type TlsCredentials } from '@secateur/rpc';
import { KernelServiceDefinition, type DescribeNodeResponse } from '@secateur/proto/kernel_service';
import type { Node } from '@secateur/proto/pruning_service';
import { TraceServiceDefinition } from '@secateur/proto/trace_service';
import type { Logger } from 'pino';

const POLL_EVERY_MS = 1_000;
const POLL_TIMEOUT_MS = 5_000;
const RETRY_AFTER_MS = 200;

/** A configured kernel node and what was last seen of it. */
export class PoolNode {
  readonly channel: Channel;
  readonly kernel: ServiceClient<KernelServiceDefinition>;
  readonly trace: ServiceClient<TraceServiceDefinition>;
  description: DescribeNodeResponse | undefined;
  healthy = false;
  reason = 'not reached yet';
  /** Whether it has been asked for its health at least once. */
  asked = false;

  constructor(
    readonly address: string,
    tls: TlsCredentials | undefined,
  ) {
    this.channel = connect(address, { kind: 'control', tls });
    this.kernel = this.channel.client(KernelServiceDefinition);
    this.trace = this.channel.client(TraceServiceDefinition);
  }

  /** Name for people: what the node calls itself, or its address. */
  get name(): string {
    return this.description?.name ?? this.address;
  }

  async poll(): Promise<void> {
    try {
      const serving = await checkHealth(this.channel, KernelServiceDefinition.fullName, POLL_TIMEOUT_MS);
      if (serving && !this.healthy) await this.describe();
      this.healthy = serving;
      this.reason = serving ? '' : 'draining';
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
}

/** The nodes this orchestrator may use, polled for their health. */
export class NodePool {
  readonly nodes: readonly PoolNode[];
  private timer: NodeJS.Timeout | undefined;
  private polling: Promise<void> = Promise.resolve();

  constructor(
    addresses: readonly string[],
    private readonly logger: Logger,
    tls: TlsCredentials | undefined,
  ) {
    this.nodes = [...new Set(addresses)].map((address) => new PoolNode(address, tls));
  }

  start(): void {
    this.schedule(0);
  }

  get healthy(): readonly PoolNode[] {
    return this.nodes.filter((node) => node.healthy);
  }

  /**
   * Waits until `enough` nodes are healthy, or at least one is and no other can be expected at once (all have been asked and did not
   * answer), or the time is over; returns the healthy ones.
   */
  async settle(enough: number, timeoutMs: number, signal: AbortSignal): Promise<readonly PoolNode[]> {
    const until = Date.now() + timeoutMs;
    const settled = (): boolean => this.healthy.length >= enough || (this.healthy.length > 0 && this.nodes.every((node) => node.asked));
    while (!settled() && Date.now() < until && !signal.aborted) {
      await this.pollAll();
      if (!settled()) await new Promise((resolve) => setTimeout(resolve, RETRY_AFTER_MS));
    }
    return this.healthy;
  }

  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    for (const node of this.nodes) node.channel.close();
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
          const wasHealthy = node.healthy;
          await node.poll();
          if (node.healthy !== wasHealthy) {
            this.logger.info({ node: node.name, address: node.address, healthy: node.healthy, reason: node.reason }, 'node health changed');
          }
        }),
      );
    });
    return this.polling;
  }
}

/** Whether an error says that a node, not the work, is at fault: the work can go on elsewhere. */
export function isNodeLoss(error: unknown): boolean {
  return (
    error instanceof SecateurError &&
    (error.reason === 'UNAVAILABLE' || error.reason === 'DEADLINE_EXCEEDED' || error.reason === 'NOT_FOUND')
  );
}

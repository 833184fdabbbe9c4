import { availableParallelism, totalmem } from 'node:os';
import { isStoreUrl } from '@secateur/checkpoint';
import { describeMachine, environmentsOfNodes } from './local-devices.js';
import { ServiceProcess } from './service-process.js';

/** Share of the memory of the machine or container that the nodes may use together. */
const MEMORY_SHARE = 0.8;

export interface LocalClusterOptions {
  /** Undefined for as many as the machine has devices, or else two. */
  readonly nodes: number | undefined;
  /** Threads of each node; 0 divides the processors between the nodes. */
  readonly threads: number;
  readonly backend: string;
  /** Folders and prefixes of stores that jobs may use. Nodes read checkpoints in the folders themselves. */
  readonly roots: readonly string[];
  /** Folder in which an output that goes to a store is made; the service's default when undefined. */
  readonly staging?: string | undefined;
}

/** An orchestrator and kernel nodes on free loopback ports of this machine: the same processes a real cluster has. */
export class LocalCluster implements AsyncDisposable {
  private readonly loss = new AbortController();

  private constructor(
    private readonly orchestrator: ServiceProcess,
    private readonly nodes: readonly ServiceProcess[],
    /** HOST:PORT of the orchestrator. */
    readonly address: string,
  ) {
    const onLost = ({ lost }: ServiceProcess): void => {
      if (orchestrator.lost.aborted || nodes.every((node) => node.lost.aborted)) this.loss.abort(lost.reason);
    };
    for (const service of [orchestrator, ...nodes]) {
      service.lost.addEventListener('abort', () => onLost(service));
      // A node may have ended while the orchestrator was starting.
      if (service.lost.aborted) onLost(service);
    }
  }

  /** Leaves no process behind when it fails or the signal aborts. */
  static async start({ staging, ...options }: LocalClusterOptions, signal: AbortSignal): Promise<LocalCluster> {
    const environments = environmentsOfNodes(options.nodes, await describeMachine(options.backend));
    const startNode = (environment: Readonly<Record<string, string>>, index: number) => {
      const name = `node-${index}`;
      return ServiceProcess.start(name, nodeArguments(name, { ...options, nodes: environments.length }), signal, environment);
    };
    const started = await Promise.allSettled(environments.map(startNode));
    const nodes = started.flatMap((result) => (result.status === 'fulfilled' ? [result.value.service] : []));
    try {
      const addresses = started.map((result) => {
        if (result.status === 'rejected') throw result.reason;
        return result.value.address;
      });
      const args = [
        ...addresses.flatMap((address) => ['--node', address]),
        ...rootArguments(options.roots),
        ...(staging === undefined ? [] : ['--staging', staging]),
      ];
      const { service, address } = await ServiceProcess.start(
        'orchestrator',
        ['serve', ...COMMON_ARGUMENTS, '--state', 'memory', ...args],
        signal,
      );
      return new LocalCluster(service, nodes, address);
    } catch (error) {
      await Promise.all(nodes.map((node) => node.stop()));
      throw error;
    }
  }

  /** Aborts when no job can go on any more: the orchestrator or all nodes have ended by themselves. */
  get lost(): AbortSignal {
    return this.loss.signal;
  }

  /** What the processes last wrote to their logs, for people who look for a reason. */
  get log(): string {
    return [this.orchestrator, ...this.nodes].map(({ name, log }) => (log === '' ? '' : `--- ${name}\n${log}`)).join('');
  }

  /** Stops the orchestrator first, so that it can give back what it holds on the nodes. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.orchestrator.stop();
    await Promise.all(this.nodes.map((node) => node.stop()));
  }
}

const COMMON_ARGUMENTS = ['--listen', '127.0.0.1:0', '--log-level', 'warn'];

function rootArguments(roots: readonly string[]): string[] {
  return roots.flatMap((root) => ['--root', root]);
}

/** Arguments of one node, which gets its part of the processors and of the memory. */
function nodeArguments(
  name: string,
  { nodes, threads, backend, roots }: Omit<LocalClusterOptions, 'staging' | 'nodes'> & { readonly nodes: number },
): string[] {
  const perNode = threads === 0 ? Math.max(1, Math.floor(availableParallelism() / nodes)) : threads;
  const limit = process.constrainedMemory();
  const memory = limit > 0 && limit < totalmem() ? limit : totalmem();
  const memoryPerNode = Math.floor((memory * MEMORY_SHARE) / nodes);
  const budget = ['--threads', String(perNode), '--memory', String(memoryPerNode)];
  // These nodes end with the command, when their work is over or of no use any more.
  // What is in a store is fetched once for all nodes, by the orchestrator.
  const folders = rootArguments(roots.filter((root) => !isStoreUrl(root)));
  return ['node', ...COMMON_ARGUMENTS, '--name', name, '--backend', backend, '--drain-timeout', '0', ...budget, ...folders];
}

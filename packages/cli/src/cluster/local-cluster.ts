import { availableParallelism } from 'node:os';
import { ServiceProcess } from './service-process.js';

export interface LocalClusterOptions {
  readonly nodes: number;
  /** Threads of each node; 0 divides the processors between the nodes. */
  readonly threads: number;
  readonly backend: string;
  /** Folders that jobs may use. */
  readonly roots: readonly string[];
}

/** An orchestrator and kernel nodes on free loopback ports of this machine: the same processes a real cluster has. */
export class LocalCluster implements AsyncDisposable {
  private constructor(
    private readonly services: readonly ServiceProcess[],
    /** HOST:PORT of the orchestrator. */
    readonly address: string,
  ) {}

  static async start({ nodes, threads, backend, roots }: LocalClusterOptions): Promise<LocalCluster> {
    const perNode = threads === 0 ? Math.max(1, Math.floor(availableParallelism() / nodes)) : threads;
    const common = ['--listen', '127.0.0.1:0', '--log-level', 'warn'];
    const starting = Array.from({ length: nodes }, (_, index) =>
      ServiceProcess.start(`node-${index}`, [
        'node',
        ...common,
        '--name',
        `node-${index}`,
        '--threads',
        String(perNode),
        '--backend',
        backend,
      ]),
    );
    const started = await Promise.allSettled(starting);
    const services = started.flatMap((result) => (result.status === 'fulfilled' ? [result.value.service] : []));
    try {
      const addresses = started.map((result) => {
        if (result.status === 'rejected') throw result.reason;
        return result.value.address;
      });
      const args = [...addresses.flatMap((address) => ['--node', address]), ...roots.flatMap((root) => ['--root', root])];
      const { service, address } = await ServiceProcess.start('orchestrator', ['serve', ...common, ...args]);
      services.unshift(service);
      return new LocalCluster(services, address);
    } catch (error) {
      await Promise.all(services.map((service) => service.stop()));
      throw error;
    }
  }

  /** What the processes last wrote to their logs, for people who look for a reason. */
  get log(): string {
    return this.services.map(({ name, log }) => (log === '' ? '' : `--- ${name}\n${log}`)).join('');
  }

  /** Stops the orchestrator first, so that it can give back what it holds on the nodes. */
  async [Symbol.asyncDispose](): Promise<void> {
    const [orchestrator, ...nodes] = this.services;
    await orchestrator?.stop();
    await Promise.all(nodes.map((node) => node.stop()));
  }
}

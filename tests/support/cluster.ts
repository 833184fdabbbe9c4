import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { PruningClient, type PruningClientOptions } from '@secateur/client';
import { remember } from './leftovers.js';
import { commandPath, repositoryRoot } from './paths.js';

const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 20_000;

interface Started {
  readonly process: ServiceProcess;
  /** HOST:PORT of gRPC. */
  readonly address: string;
  /** HOST:PORT of HTTP, where it was asked for. */
  readonly httpAddress: string | undefined;
}

/** A real `secateur serve` or `secateur node` process. */
export class ServiceProcess {
  private stderr = '';
  private isClosed = false;

  private constructor(private readonly child: ChildProcess) {
    child.once('close', () => (this.isClosed = true));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr = (this.stderr + text).slice(-20_000);
    });
  }

  /** Starts the process and waits until it listens. `command` is the script that runs; `launcher` becomes the process that runs it. */
  static async start(
    args: readonly string[],
    environment: NodeJS.ProcessEnv = {},
    command: string = commandPath,
    launcher: readonly string[] = [],
  ): Promise<Started> {
    const [program = '', ...rest] = [...launcher, process.execPath, command, ...args];
    const child = spawn(program, rest, {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      env: { ...withoutTestOptions(process.env), ...environment },
    });
    remember(child);
    const service = new ServiceProcess(child);
    const timer = setTimeout(() => child.kill('SIGKILL'), START_TIMEOUT_MS);
    try {
      const addresses = await new Promise<Omit<Started, 'process'>>((resolve, reject) => {
        child.on('message', ({ type, address, httpAddress }: { type: string; address: string; httpAddress?: string }) => {
          if (type === 'listening') resolve({ address, httpAddress });
        });
        child.once('exit', (code, signal) => reject(new Error(`secateur ${args.join(' ')} ended (${code ?? signal}): ${service.stderr}`)));
      });
      return { process: service, ...addresses };
    } finally {
      clearTimeout(timer);
    }
  }

  get pid(): number {
    return this.child.pid ?? -1;
  }

  /** Null while it runs or its output has more to come, and when a signal ended it. */
  get exitCode(): number | null {
    return this.isClosed ? this.child.exitCode : null;
  }

  /** What the process wrote to stderr last. */
  get output(): string {
    return this.stderr;
  }

  async signal(name: NodeJS.Signals): Promise<void> {
    if (this.isClosed) return;
    const closed = once(this.child, 'close');
    this.child.kill(name);
    const timer = setTimeout(() => this.child.kill('SIGKILL'), STOP_TIMEOUT_MS);
    await closed;
    clearTimeout(timer);
  }
}

export interface ClusterOptions {
  readonly nodes: number;
  /** Nodes that are configured but do not answer. */
  readonly unreachable?: number;
  /** Threads of each node. */
  readonly threads?: number;
  /** Memory budget of each node, as --memory takes it. */
  readonly memory?: string;
  /** Whether all processes listen for HTTP too. */
  readonly http?: boolean;
  readonly environment?: NodeJS.ProcessEnv;
  /** Of the nodes alone, in addition. */
  readonly nodeEnvironment?: NodeJS.ProcessEnv;
  /** Where jobs are kept, as --state takes it; in memory by default. */
  readonly state?: string;
  /** Orchestrators that share the state, each with the same nodes. */
  readonly orchestrators?: number;
  /** More arguments of `secateur serve`. */
  readonly serve?: readonly string[];
  /** More arguments of `secateur node`. */
  readonly node?: readonly string[];
  /** How the clients are known to the orchestrators. */
  readonly client?: PruningClientOptions;
  /** Folders jobs may use beside the repository and the system's temporary folder. */
  readonly roots?: readonly string[];
}

/** An orchestrator that was started, with a client of its own. */
export interface Replica {
  readonly process: ServiceProcess;
  readonly address: string;
  /** HOST:PORT for HTTP; empty where it does not listen for it. */
  readonly httpAddress: string;
  readonly client: PruningClient;
}

/** Orchestrators, one if not told otherwise, and their kernel nodes, all real processes on loopback. */
export class Cluster implements AsyncDisposable {
  private constructor(
    readonly nodes: readonly ServiceProcess[],
    readonly replicas: Replica[],
    private readonly startReplica: () => Promise<Replica>,
    /** HOST:PORT for HTTP of each node; empty where they do not listen for it. */
    readonly nodesHttp: readonly string[],
  ) {}

  static async start({
    nodes,
    unreachable = 0,
    threads = 1,
    memory = '2GiB',
    http = false,
    environment = {},
    nodeEnvironment = {},
    roots = [],
    state = 'memory',
    orchestrators = 1,
    serve = [],
    node = [],
    client = {},
  }: ClusterOptions): Promise<Cluster> {
    const httpArgs = http ? ['--http-listen', '127.0.0.1:0'] : [];
    const metricsArgs = http ? ['--metrics-listen', '127.0.0.1:0'] : [];
    const names = Array.from({ length: nodes }, (_, index) => `node-${index}`);
    const started = await Promise.all(
      names.map((name) =>
        ServiceProcess.start(
          [
            ...['node', '--listen', '127.0.0.1:0', '--name', name, '--threads', String(threads), '--memory', memory, '--backend', 'cpu'],
            ...node,
            ...metricsArgs,
          ],
          { ...environment, ...nodeEnvironment },
        ),
      ),
    );
    // Port 1 of loopback addresses: nothing listens there.
    const missing = Array.from({ length: unreachable }, (_, index) => `127.0.1.${index + 1}:1`);
    const nodeArgs = [...started.map(({ address }) => address), ...missing].flatMap((address) => ['--node', address]);
    const rootArgs = [repositoryRoot, tmpdir(), ...roots].flatMap((root) => ['--root', root]);
    const startReplica = async (): Promise<Replica> => {
      const args = ['serve', '--listen', '127.0.0.1:0', '--state', state, ...httpArgs, ...nodeArgs, ...rootArgs, ...serve];
      const { process: service, address, httpAddress = '' } = await ServiceProcess.start(args, environment);
      return { process: service, address, httpAddress, client: PruningClient.connect(address, client) };
    };
    const replicas: Replica[] = [];
    for (let index = 0; index < orchestrators; ++index) replicas.push(await startReplica());
    return new Cluster(
      started.map(({ process: service }) => service),
      replicas,
      startReplica,
      started.map(({ httpAddress = '' }) => httpAddress),
    );
  }

  get orchestrator(): ServiceProcess {
    return this.replicas[0]!.process;
  }

  /** HOST:PORT of the first orchestrator. */
  get address(): string {
    return this.replicas[0]!.address;
  }

  /** The same for HTTP. */
  get httpAddress(): string {
    return this.replicas[0]!.httpAddress;
  }

  /** A client of the first orchestrator. */
  get client(): PruningClient {
    return this.replicas[0]!.client;
  }

  /** Starts one more orchestrator with the same state and nodes. */
  async addReplica(): Promise<Replica> {
    const replica = await this.startReplica();
    this.replicas.push(replica);
    return replica;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { client } of this.replicas) client.close();
    await Promise.all(this.replicas.map(({ process: service }) => service.signal('SIGTERM')));
    await Promise.all(this.nodes.map((node) => node.signal('SIGTERM')));
  }
}

function withoutTestOptions(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: _jestOnly, ...rest } = environment;
  return rest;
}

import { KernelServiceDefinition } from '@secateur/proto/kernel_service';
import { connect, RpcServer, type Channel, type ServiceImplementation } from '@secateur/rpc';

type Method = keyof KernelServiceDefinition['methods'];

/** What becomes of an answer of a real node, a message of a stream among them, and when; undefined leaves it out. */
export type Alteration = (method: Method, answer: object) => object | undefined | Promise<object | undefined>;

type AnyCall = (
  request: unknown,
  options: { readonly timeoutMs: number; readonly signal: AbortSignal },
) => Promise<object> & AsyncIterable<object>;

const TIMEOUT_MS = 600_000;

/** Stands before a real node and alters what it answers, as a node with broken memory or a wrong build would. */
export class AlteringNode implements AsyncDisposable {
  alter: Alteration = (_method, answer) => answer;

  private constructor(
    readonly address: string,
    private readonly server: RpcServer,
    private readonly channel: Channel,
    setAlter: (read: () => Alteration) => void,
  ) {
    setAlter(() => this.alter);
  }

  static async start(nodeAddress: string): Promise<AlteringNode> {
    const channel = connect(nodeAddress, { kind: 'control' });
    const node = channel.client(KernelServiceDefinition) as unknown as Readonly<Record<Method, AnyCall>>;
    let readAlter: () => Alteration = () => (_method, answer) => answer;
    const handlers = Object.entries(KernelServiceDefinition.methods).map(([key, { responseStream }]) => {
      const method = key as Method;
      const call = (request: unknown, signal: AbortSignal): ReturnType<AnyCall> => node[method](request, { timeoutMs: TIMEOUT_MS, signal });
      const unary = async (request: unknown, { signal }: { readonly signal: AbortSignal }): Promise<object> =>
        (await readAlter()(method, await call(request, signal))) ?? {};
      const stream = async function* (request: unknown, { signal }: { readonly signal: AbortSignal }): AsyncGenerator<object> {
        for await (const answer of call(request, signal)) {
          const altered = await readAlter()(method, answer);
          if (altered !== undefined) yield altered;
        }
      };
      return [method, responseStream ? stream : unary];
    });
    const server = new RpcServer();
    server.addService(KernelServiceDefinition, Object.fromEntries(handlers) as ServiceImplementation<KernelServiceDefinition>);
    const { host, port } = await server.listen('127.0.0.1:0');
    server.setServing(true);
    return new AlteringNode(`${host}:${port}`, server, channel, (read) => {
      readAlter = read;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.shutdown({ graceMs: 1_000 });
    this.channel.close();
  }
}

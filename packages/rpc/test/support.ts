import { createServer, connect as connectTcp, type AddressInfo, type Socket } from 'node:net';
import { FetchRequest, FetchResponse } from '@secateur/proto/tensor_service';
import {
  connect,
  type Channel,
  type ChannelKind,
  RpcServer,
  type RpcLogger,
  type ServiceDefinition,
  type ServiceImplementation,
} from '../src/index.js';

/** One unary and one streaming method over messages with a text, a number and bytes. */
export const TestDefinition = {
  name: 'TestService',
  fullName: 'secateur.test.TestService',
  methods: {
    ask: { name: 'Ask', requestType: FetchRequest, requestStream: false, responseType: FetchResponse, responseStream: false },
    list: { name: 'List', requestType: FetchRequest, requestStream: false, responseType: FetchResponse, responseStream: true },
  },
} as const satisfies ServiceDefinition;

export type TestHandlers = Partial<ServiceImplementation<typeof TestDefinition>>;

const DEFAULT_HANDLERS: ServiceImplementation<typeof TestDefinition> = {
  ask: ({ offset }) => Promise.resolve({ offset }),
  async *list({ offset }) {
    for (let index = 0; index < offset; index++) yield { offset: index };
  },
};

export interface TestServer extends AsyncDisposable {
  readonly server: RpcServer;
  readonly address: string;
  connect(kind?: ChannelKind): Channel;
}

export function startTestServer(handlers: TestHandlers = {}, logger?: RpcLogger): Promise<TestServer> {
  return startServer(TestDefinition, { ...DEFAULT_HANDLERS, ...handlers }, logger);
}

export async function startServer<Definition extends ServiceDefinition>(
  definition: Definition,
  implementation: ServiceImplementation<Definition>,
  logger?: RpcLogger,
): Promise<TestServer> {
  const server = new RpcServer(logger === undefined ? {} : { logger });
  server.addService(definition, implementation);
  const { host, port } = await server.listen('127.0.0.1:0');
  server.setServing(true);
  const address = `${host}:${port}`;
  const channels: Channel[] = [];
  return {
    server,
    address,
    connect: (kind = 'control') => {
      const channel = connect(address, { kind });
      channels.push(channel);
      return channel;
    },
    [Symbol.asyncDispose]: async () => {
      for (const channel of channels) channel.close();
      await server.shutdown({ graceMs: 1_000 });
    },
  };
}

export interface TcpProxy extends AsyncDisposable {
  readonly address: string;
  /** Bytes that went to the client. */
  readonly forwardedBytes: () => number;
  /** Cuts all connections. */
  cut(): void;
  /** Stops forwarding and keeps the connections. */
  freeze(): void;
  /** Called with the bytes that went to the client so far. */
  onForward: (bytes: number) => void;
}

/** Stands between a client and a server and breaks their connection when told to. */
export async function startProxy(target: string): Promise<TcpProxy> {
  const [host = '', port] = target.split(':');
  const sockets = new Set<Socket>();
  let forwarded = 0;
  let frozen = false;
  const keep = (socket: Socket): Socket => {
    sockets.add(socket);
    return socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
  };
  const server = createServer((downstream) => {
    const upstream = keep(connectTcp(Number(port), host));
    keep(downstream);
    downstream.on('data', (bytes) => {
      if (!frozen) upstream.write(bytes);
    });
    upstream.on('data', (bytes) => {
      if (frozen) return;
      forwarded += bytes.byteLength;
      if (!downstream.write(bytes)) {
        upstream.pause();
        downstream.once('drain', () => upstream.resume());
      }
      proxy.onForward(forwarded);
    });
    downstream.on('close', () => upstream.destroy());
    upstream.on('close', () => downstream.destroy());
  });
  const proxy: TcpProxy = {
    address: '',
    forwardedBytes: () => forwarded,
    onForward: () => undefined,
    cut: () => {
      for (const socket of sockets) socket.destroy();
    },
    freeze: () => {
      frozen = true;
    },
    [Symbol.asyncDispose]: async () => {
      proxy.cut();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return Object.assign(proxy, { address: `127.0.0.1:${(server.address() as AddressInfo).port}` });
}

/** Resolves when the signal aborts, with its reason. */
export function aborted(signal: AbortSignal): Promise<unknown> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(signal.reason);
    signal.addEventListener('abort', () => resolve(signal.reason), { once: true });
  });
}

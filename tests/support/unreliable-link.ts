import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** How long TCP waits at least until it sends a lost packet again, and how much a packet holds, on a link of some length. */
const RETRANSMISSION_MS = 200;
const PACKET_BYTES = 1460;

export interface LinkOptions {
  /** Each way. */
  readonly delayMs?: number;
  /** Share of packets that are lost once; what follows them waits until they are sent again, as TCP has it. */
  readonly loss?: number;
}

type Direction = 'there' | 'back';

/** A port that leads to another one over a link as long and as bad as wanted, which can fall silent one way, or be cut. */
export class UnreliableLink implements AsyncDisposable {
  private readonly sockets = new Set<Socket>();
  private readonly silent = new Set<Direction>();
  private readonly waiting: (() => void)[] = [];
  /** HOST:PORT it leads to; may be set once that is known. */
  target = '';

  private constructor(
    private readonly server: Server,
    readonly address: string,
    private options: LinkOptions,
  ) {
    server.on('connection', (near) => this.join(near));
  }

  static async open(options: LinkOptions = {}): Promise<UnreliableLink> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new UnreliableLink(server, `127.0.0.1:${(server.address() as AddressInfo).port}`, options);
  }

  /** From now on the link is so long and so bad. */
  change(options: LinkOptions): void {
    this.options = options;
  }

  /** Nothing arrives in that direction any more, and nobody is told; connections stay. */
  silence(direction: Direction): void {
    this.silent.add(direction);
  }

  /** What was sent meanwhile arrives, as TCP sends it again. */
  heal(): void {
    this.silent.clear();
    for (const resume of this.waiting.splice(0)) resume();
  }

  /** Breaks all connections; new ones can be made. */
  cut(): void {
    for (const socket of this.sockets) socket.resetAndDestroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.heal();
    this.cut();
    this.server.close();
    await once(this.server, 'close');
  }

  private join(near: Socket): void {
    const [host, port] = this.target.split(':');
    const far = connect(Number(port), host);
    for (const socket of [near, far]) {
      socket.setNoDelay(true);
      this.sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        this.sockets.delete(socket);
        near.destroy();
        far.destroy();
      });
    }
    this.carry(near, far, 'there');
    this.carry(far, near, 'back');
  }

  private carry(from: Socket, to: Socket, direction: Direction): void {
    let arrived = Promise.resolve();
    from.on('data', (bytes: Buffer) => {
      const { delayMs = 0, loss = 0 } = this.options;
      const packets = Math.ceil(bytes.byteLength / PACKET_BYTES);
      const isLost = Math.random() < 1 - (1 - loss) ** packets;
      const due = performance.now() + delayMs + (isLost ? RETRANSMISSION_MS : 0);
      arrived = arrived.then(async () => {
        const leftMs = due - performance.now();
        if (leftMs > 0) await new Promise((resolve) => setTimeout(resolve, leftMs));
        while (this.silent.has(direction)) await new Promise<void>((resolve) => this.waiting.push(resolve));
        if (!to.destroyed) to.write(bytes);
      });
    });
    from.on('end', () => void arrived.then(() => to.end()));
  }
}

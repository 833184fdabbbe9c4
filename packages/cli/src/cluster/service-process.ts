import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { SecateurError } from '@secateur/core';

const COMMAND = fileURLToPath(new URL('../../bin/secateur.js', import.meta.url));
const START_TIMEOUT_MS = 60_000;
const STOP_GRACE_MS = 15_000;
const KEPT_OUTPUT = 16_000;

/** A `secateur serve` or `secateur node` process of ours. It ends with us, however we end, because its IPC channel closes then. */
export class ServiceProcess {
  private output = '';

  private constructor(
    readonly name: string,
    private readonly child: ChildProcess,
  ) {
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.output = (this.output + text).slice(-KEPT_OUTPUT);
    });
  }

  /** Starts the process and resolves with its address once it listens. */
  static async start(name: string, args: readonly string[]): Promise<{ readonly service: ServiceProcess; readonly address: string }> {
    // A process group of its own: Ctrl-C in the terminal is for us to handle.
    const child = spawn(process.execPath, [COMMAND, ...args], { stdio: ['ignore', 'ignore', 'pipe', 'ipc'], detached: true });
    const service = new ServiceProcess(name, child);
    const timer = setTimeout(() => child.kill('SIGKILL'), START_TIMEOUT_MS);
    try {
      const address = await new Promise<string>((resolve, reject) => {
        child.on('message', (message) => {
          if (isListening(message)) resolve(message.address);
        });
        child.once('error', reject);
        child.once('exit', (code, signal) => reject(service.ended(code ?? signal)));
      });
      return { service, address };
    } finally {
      clearTimeout(timer);
    }
  }

  /** What the process last wrote to its log. */
  get log(): string {
    return this.output;
  }

  /** Ends the process: SIGTERM, and SIGKILL when that takes too long. */
  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exited = once(this.child, 'exit');
    this.child.kill('SIGTERM');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), STOP_GRACE_MS);
    await exited;
    clearTimeout(timer);
  }

  private ended(how: number | string | null): SecateurError {
    return new SecateurError(
      'UNAVAILABLE',
      `The ${this.name} process ended (${how ?? 'unknown'}) before it was ready. ${this.output.trim()}`,
    );
  }
}

function isListening(message: unknown): message is { readonly type: 'listening'; readonly address: string } {
  return typeof message === 'object' && message !== null && 'type' in message && message.type === 'listening' && 'address' in message;
}

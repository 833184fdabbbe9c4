import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { SecateurError } from '@secateur/core';
import { Interrupted } from '../output/exit.js';

const COMMAND = fileURLToPath(new URL('../../bin/secateur.js', import.meta.url));
const START_TIMEOUT_MS = 60_000;
const STOP_GRACE_MS = 15_000;
const KEPT_OUTPUT = 16_000;

/** A `secateur serve` or `secateur node` process of ours. It ends with us, however we end, because its IPC channel closes then. */
export class ServiceProcess {
  private output = '';
  private stopping = false;
  private readonly loss = new AbortController();

  private constructor(
    readonly name: string,
    private readonly child: ChildProcess,
  ) {
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.output = (this.output + text).slice(-KEPT_OUTPUT);
      });
    }
    child.once('close', (code, how) => {
      if (!this.stopping) this.loss.abort(new SecateurError('UNAVAILABLE', `The ${name} process ended unexpectedly (${code ?? how}).`));
    });
  }

  /** Starts the process and resolves with its address once it listens. `environment`: beside what this process has. */
  static async start(
    name: string,
    args: readonly string[],
    signal: AbortSignal,
    environment: Readonly<Record<string, string>> = {},
  ): Promise<{ readonly service: ServiceProcess; readonly address: string }> {
    if (signal.aborted) throw new Interrupted('Stopped.');
    // A process group of its own: Ctrl-C in the terminal is for us to handle.
    const child = spawn(process.execPath, [COMMAND, ...args], {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      detached: true,
      env: { ...process.env, ...environment },
    });
    const service = new ServiceProcess(name, child);
    const kill = (): boolean => child.kill('SIGKILL');
    const timer = setTimeout(kill, START_TIMEOUT_MS);
    signal.addEventListener('abort', kill);
    try {
      const address = await new Promise<string>((resolve, reject) => {
        child.on('message', (message) => {
          if (isListening(message)) resolve(message.address);
        });
        child.once('error', reject);
        // After `close` all of its output has been read.
        child.once('close', (code, how) => reject(signal.aborted ? new Interrupted('Stopped.') : service.ended(code ?? how)));
      });
      return { service, address };
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', kill);
    }
  }

  /** What the process last wrote to its log. */
  get log(): string {
    return this.output;
  }

  /** Aborts when the process ends without having been told to. */
  get lost(): AbortSignal {
    return this.loss.signal;
  }

  /** Ends the process: SIGTERM, and SIGKILL when that takes too long. */
  async stop(): Promise<void> {
    this.stopping = true;
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

import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chown, mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const DEBIAN_FOLDER = '/usr/lib/postgresql';
const START_TIMEOUT_MS = 60_000;
const PASSWORD = 'for-tests-only';

/** A real PostgreSQL server of its own on a free loopback port, which can be killed and started again. */
export class PostgresServer implements AsyncDisposable {
  private child: ChildProcess | undefined;
  private log = '';

  private constructor(
    private readonly programs: string,
    private readonly directory: string,
    private readonly port: number,
    private readonly user: { readonly uid?: number; readonly gid?: number },
  ) {}

  static async start(): Promise<PostgresServer> {
    const programs = await findPrograms();
    const user = unprivilegedUser();
    const directory = await mkdtemp(join(tmpdir(), 'postgres-'));
    if (user.uid !== undefined && user.gid !== undefined) await chown(directory, user.uid, user.gid);
    const server = new PostgresServer(programs, directory, await freePort(), user);
    const made = spawnSync(
      join(programs, 'initdb'),
      ['--pgdata', join(directory, 'data'), '--username', 'secateur', '--auth', 'trust', '--no-sync'],
      {
        ...user,
        cwd: directory,
        encoding: 'utf8',
      },
    );
    if (made.status !== 0) throw new Error(`initdb failed: ${made.stderr}`);
    await server.run();
    return server;
  }

  /** What DATABASE_URL takes. */
  get url(): string {
    return `postgres://secateur:${PASSWORD}@127.0.0.1:${this.port}/postgres`;
  }

  /** Starts the server again after it was killed; what it had committed is there. */
  async run(): Promise<void> {
    const args = [
      '-D',
      join(this.directory, 'data'),
      '-p',
      String(this.port),
      '-h',
      '127.0.0.1',
      '-k',
      this.directory,
      '-c',
      'shared_buffers=16MB',
    ];
    const child = spawn(join(this.programs, 'postgres'), args, { ...this.user, cwd: this.directory, stdio: ['ignore', 'ignore', 'pipe'] });
    this.child = child;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`PostgreSQL did not start: ${this.log}`)), START_TIMEOUT_MS);
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        this.log = (this.log + text).slice(-20_000);
        if (!text.includes('ready to accept connections')) return;
        clearTimeout(timer);
        resolve();
      });
      child.once('exit', () => reject(new Error(`PostgreSQL ended: ${this.log}`)));
    });
  }

  /** SIGKILL ends it as a power cut does, SIGQUIT at once, SIGTERM when its clients have gone. */
  async end(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const { child } = this;
    this.child = undefined;
    if (child?.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end('SIGQUIT');
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** Debian keeps the programs of the server out of the PATH. */
async function findPrograms(): Promise<string> {
  const versions = await readdir(DEBIAN_FOLDER).catch(() => []);
  const folders = [...versions.map((version) => join(DEBIAN_FOLDER, version, 'bin')), ...(process.env['PATH'] ?? '').split(':')];
  const found = folders.find((folder) => spawnSync(join(folder, 'initdb'), ['--version']).status === 0);
  if (found === undefined) throw new Error('initdb was not found; node scripts/setup.mjs --tests installs PostgreSQL where it may.');
  return found;
}

/** PostgreSQL refuses to run as root. */
function unprivilegedUser(): { readonly uid?: number; readonly gid?: number } {
  if (process.getuid?.() !== 0) return {};
  const idOf = (flag: string): number => Number(spawnSync('id', [flag, 'postgres'], { encoding: 'utf8' }).stdout);
  return { uid: idOf('-u'), gid: idOf('-g') };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

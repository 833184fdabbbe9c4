import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, copyFile, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CertificateFiles } from './certificates.js';

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
    private readonly options: readonly string[],
  ) {}

  /** With a certificate it takes encrypted connections only. */
  static async start(tls?: CertificateFiles): Promise<PostgresServer> {
    const programs = await findPrograms();
    const user = unprivilegedUser();
    const directory = await mkdtemp(join(tmpdir(), 'postgres-'));
    if (user.uid !== undefined && user.gid !== undefined) await chown(directory, user.uid, user.gid);
    const options = tls === undefined ? [] : await encryptionOptions(tls, directory, user);
    const server = new PostgresServer(programs, directory, await freePort(), user, options);
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
    if (tls !== undefined) await writeFile(join(directory, 'data', 'pg_hba.conf'), 'hostssl all all 127.0.0.1/32 trust\n');
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
      ...this.options,
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

/** PostgreSQL reads its key only where nobody else could. */
async function encryptionOptions(
  { certificate, privateKey }: CertificateFiles,
  directory: string,
  { uid, gid }: { readonly uid?: number; readonly gid?: number },
): Promise<string[]> {
  const copies = [join(directory, 'server.pem'), join(directory, 'server.key')] as const;
  await copyFile(certificate, copies[0]);
  await copyFile(privateKey, copies[1]);
  await chmod(copies[1], 0o600);
  if (uid !== undefined && gid !== undefined) for (const copy of copies) await chown(copy, uid, gid);
  return ['-c', 'ssl=on', '-c', `ssl_cert_file=${copies[0]}`, '-c', `ssl_key_file=${copies[1]}`];
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

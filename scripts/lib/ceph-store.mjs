import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CommandError, requireCommand } from './run-command.mjs';

/** @typedef {import('node:child_process').ChildProcess} ChildProcess */

const startTimeoutMs = 60_000;
/** Of the one user. */
const keys = { AWS_ACCESS_KEY_ID: 'SECATEUR', AWS_SECRET_ACCESS_KEY: 'for-tests-only' };
const memoryBytes = 4 * 2 ** 30;

/** What each part of the cluster may do. */
const capabilities = {
  'mon.': ['mon', 'allow *'],
  'client.admin': ['mon', 'allow *', 'osd', 'allow *'],
  'client.gateway': ['mon', 'allow rwx', 'osd', 'allow rwx'],
  'osd.0': ['mon', 'allow profile osd', 'osd', 'allow *'],
};

/** The object gateway of Ceph, with one monitor and one place for objects, in memory, on free ports of the loopback interface. */
export class CephStore {
  /** @type {ChildProcess[]} */
  #processes = [];
  #folder = mkdtempSync(join(tmpdir(), 'ceph-store-'));
  #environment = { CEPH_CONF: join(this.#folder, 'ceph.conf') };
  #endpoint = '';

  async start() {
    const clusterId = randomUUID();
    const storeId = randomUUID();
    const monitor = `[v2:127.0.0.1:${await freePort()}]`;
    const port = await freePort();
    this.#endpoint = `http://127.0.0.1:${port}`;
    for (const name of ['mon', 'osd']) mkdirSync(this.#path(name));
    writeFileSync(this.#environment.CEPH_CONF, this.#settings(clusterId, monitor, port));
    const keyring = this.#path('keyring');
    for (const [name, rights] of Object.entries(capabilities)) {
      const caps = rights.flatMap((_, index) => (index % 2 === 0 ? ['--cap', ...rights.slice(index, index + 2)] : []));
      await this.#run('ceph-authtool', [keyring, ...(name === 'mon.' ? ['--create-keyring'] : []), '--gen-key', '-n', name, ...caps]);
    }
    await this.#run('monmaptool', ['--create', '--addv', 'a', monitor, '--fsid', clusterId, this.#path('monmap')]);
    await this.#run('ceph-mon', ['--mkfs', '-i', 'a', '--monmap', this.#path('monmap'), '--keyring', keyring]);
    this.#spawn('ceph-mon', ['-i', 'a']);
    await this.#run('ceph', ['--connect-timeout', String(startTimeoutMs / 1000), 'osd', 'new', storeId]);
    await this.#run('ceph-osd', ['--mkfs', '-i', '0', '--osd-uuid', storeId]);
    this.#spawn('ceph-osd', ['-i', '0']);
    this.#spawn('radosgw', ['-n', 'client.gateway']);
    await this.#waitForAnswer();
    const user = ['--uid=secateur', '--display-name=secateur'];
    await this.#run('radosgw-admin', [
      'user',
      'create',
      ...user,
      `--access-key=${keys.AWS_ACCESS_KEY_ID}`,
      `--secret-key=${keys.AWS_SECRET_ACCESS_KEY}`,
    ]);
  }

  /** By which commands find it: the tests, and what finds its store as the AWS tools do. */
  get environment() {
    return { ...keys, AWS_ENDPOINT_URL_S3: this.#endpoint, SECATEUR_TEST_STORE_ENDPOINT: this.#endpoint };
  }

  async stop() {
    // Those that lean on others first.
    for (const process of this.#processes.reverse()) {
      if (process.exitCode !== null || process.signalCode !== null) continue;
      const ended = once(process, 'exit');
      process.kill('SIGKILL');
      await ended;
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** @param {string} name */
  #path(name) {
    return join(this.#folder, name);
  }

  /** @param {string} clusterId @param {string} monitor @param {number} port */
  #settings(clusterId, monitor, port) {
    const settings = {
      fsid: clusterId,
      'mon host': monitor,
      'public addr': '127.0.0.1',
      'cluster addr': '127.0.0.1',
      'mon data': this.#path('mon'),
      'osd data': this.#path('osd'),
      'run dir': this.#folder,
      'admin socket': this.#path('$name.asok'),
      'log file': this.#path('$name.log'),
      keyring: this.#path('keyring'),
      // A disk that is nearly full does not matter: nothing is kept there.
      'mon data avail crit': 0,
      // One copy, in one place.
      'mon allow pool size one': true,
      'osd pool default size': 1,
      'osd pool default min size': 1,
      'osd pool default pg num': 8,
      'osd pool default pg autoscale mode': 'off',
      'osd crush chooseleaf type': 0,
      'osd objectstore': 'memstore',
      'memstore device bytes': memoryBytes,
      'rgw frontends': `beast endpoint=127.0.0.1:${port}`,
      'rgw dynamic resharding': false,
    };
    const lines = Object.entries(settings).map(([name, value]) => `${name} = ${value}\n`);
    return `[global]\n${lines.join('')}`;
  }

  /** @param {string} program @param {readonly string[]} args */
  #run(program, args) {
    return requireCommand(program, args, { env: this.#environment, quiet: true });
  }

  /** @param {string} program @param {readonly string[]} args */
  #spawn(program, args) {
    const log = openSync(this.#path('output.log'), 'a');
    const env = { ...process.env, ...this.#environment };
    this.#processes.push(spawn(program, [...args, '--foreground'], { env, stdio: ['ignore', log, log] }));
  }

  async #waitForAnswer() {
    const end = Date.now() + startTimeoutMs;
    while (Date.now() < end && this.#processes.every(({ exitCode, signalCode }) => exitCode === null && signalCode === null)) {
      if (await answers(this.#endpoint)) return;
      await sleep(200);
    }
    throw new CommandError('The object gateway did not start.', readFileSync(this.#path('output.log'), 'utf8'));
  }
}

/** @param {string} url */
async function answers(url) {
  try {
    return (await fetch(url)).ok;
  } catch {
    return false;
  }
}

/** @returns {Promise<number>} */
async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  server.close();
  await once(server, 'close');
  return port;
}

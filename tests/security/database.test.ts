/** The job database over TLS: a real PostgreSQL server that takes nothing else, and a service that knows whom it talks to. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { PruningClient } from '@secateur/client';
import { CertificateAuthority } from '../support/certificates.js';
import { ServiceProcess } from '../support/cluster.js';
import { runCommand } from '../support/command.js';
import { temporaryFolder, type TemporaryFolder } from '../support/paths.js';
import { PostgresServer } from '../support/postgres-server.js';

let folder: TemporaryFolder;
let authority: CertificateAuthority;
let database: PostgresServer;
beforeAll(async () => {
  folder = await temporaryFolder();
  authority = await CertificateAuthority.create(folder.path, 'authority');
  database = await PostgresServer.start(await authority.issue('database', { names: ['localhost'], addresses: [] }));
});
afterAll(async () => {
  await database[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

/** Of a service that keeps its jobs there. */
function argumentsFor(host: string, authorityPath: string): string[] {
  const state = `${database.url.replace('127.0.0.1', host)}?sslmode=verify-full&sslrootcert=${authorityPath}`;
  return ['serve', '--listen', '127.0.0.1:0', '--node', '127.0.0.1:1', '--root', folder.path, '--state', state];
}

test('jobs are kept in a database that is known by its certificate', async () => {
  const { process: service, address } = await ServiceProcess.start(argumentsFor('localhost', authority.path));
  const client = PruningClient.connect(address);
  try {
    await expect(client.getJob('unknown')).rejects.toMatchObject({ reason: 'NOT_FOUND' });
  } finally {
    client.close();
    await service.signal('SIGTERM');
  }
});

test.each([
  ['it is certified by another authority', 'localhost', async () => (await CertificateAuthority.create(folder.path, 'other')).path],
  ['it has another name', '127.0.0.1', () => Promise.resolve(authority.path)],
])('no job is given to a database when %s', async (_, host, authorityPath) => {
  const { exitCode, stderr } = await runCommand(argumentsFor(host, await authorityPath()));
  expect(exitCode).toBe(1);
  expect(stderr).toMatch(/certificate|altnames/);
  expect(stderr).not.toContain('for-tests-only');
});

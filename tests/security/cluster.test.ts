/** A cluster with certificates and tokens, of real processes: it prunes, and refuses whoever may not do what it asks for. */
import { readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { newToken } from '@secateur/access';
import { PruningClient, TlsCredentials, type PruningClientOptions } from '@secateur/client';
import { Repair, RepairTargets } from '@secateur/proto/allocation';
import { JobState, TokenSource } from '@secateur/proto/job';
import { KernelServiceDefinition } from '@secateur/proto/kernel_service';
import { TensorServiceDefinition } from '@secateur/proto/tensor_service';
import { checkHealth, connect, type Channel, type TlsFiles } from '@secateur/rpc';
import { CertificateAuthority, type CertificateOptions } from '../support/certificates.js';
import { Cluster } from '../support/cluster.js';
import { runCommand } from '../support/command.js';
import { eventually, prune, pruneSpec } from '../support/jobs.js';
import { fixturePath, modelPath, temporaryFolder, type TemporaryFolder } from '../support/paths.js';

const DOMAIN = 'spiffe://secateur.test/secateur';
const OPTIONS = { timeoutMs: 10_000 };

const alice = newToken({ name: 'alice', tenant: 'research', role: 'user' });
const admin = newToken({ name: 'root', tenant: 'default', role: 'administrator' });

let folder: TemporaryFolder;
let authority: CertificateAuthority;
let tokens: string;
let nodeFiles: TlsFiles;
let orchestratorFiles: TlsFiles;
let cluster: Cluster;
const opened: Disposable[] = [];

async function issue(name: string, options: CertificateOptions, issuer = authority): Promise<TlsFiles> {
  return { ...(await issuer.issue(name, options)), authorities: authority.path };
}

function tlsArguments({ certificate = '', privateKey = '', authorities = '' }: TlsFiles): string[] {
  return ['--tls-cert', certificate, '--tls-key', privateKey, '--tls-ca', authorities];
}

beforeAll(async () => {
  folder = await temporaryFolder();
  authority = await CertificateAuthority.create(folder.path, 'authority');
  tokens = join(folder.path, 'tokens.json');
  await writeFile(tokens, JSON.stringify([alice.entry, admin.entry]));
  nodeFiles = await issue('node', { uris: [`${DOMAIN}/kernel-node`] });
  orchestratorFiles = await issue('orchestrator', { uris: [`${DOMAIN}/orchestrator`] });
  cluster = await Cluster.start({
    nodes: 2,
    node: tlsArguments(nodeFiles),
    // Health and metrics may be everywhere, as pods have them.
    serve: [...tlsArguments(orchestratorFiles), '--tokens', tokens, '--calls-per-second', '200', '--metrics-listen', '0.0.0.0:0'],
    client: { tls: await open({ authorities: authority.path }), token: alice.token },
  });
});
afterAll(async () => {
  for (const one of opened) one[Symbol.dispose]();
  await cluster[Symbol.asyncDispose]();
  await folder[Symbol.asyncDispose]();
});

const credentials = new Map<string, TlsCredentials>();

async function open(files: TlsFiles): Promise<TlsCredentials> {
  const key = JSON.stringify(files);
  const tls = credentials.get(key) ?? (await TlsCredentials.load(files));
  if (!credentials.has(key)) opened.push(tls);
  credentials.set(key, tls);
  return tls;
}

async function as(options: PruningClientOptions): Promise<PruningClient> {
  const client = PruningClient.connect(cluster.address, { tls: await open({ authorities: authority.path }), ...options });
  opened.push({ [Symbol.dispose]: () => client.close() });
  return client;
}

async function channelTo(address: string, files: TlsFiles): Promise<Channel> {
  const channel = connect(address, { kind: 'control', tls: await open(files) });
  opened.push({ [Symbol.dispose]: () => channel.close() });
  return channel;
}

async function nodeAddress(): Promise<string> {
  const [node] = await cluster.client.listNodes();
  return node!.address;
}

test('prunes from end to end, with bytes pulled from the orchestrator and between nodes', async () => {
  const output = join(folder.path, 'pruned');
  const spec = pruneSpec('books-opt', output, {
    calibration: TokenSource.fromPartial({
      path: fixturePath('calibration', 'books-opt-calibration.safetensors'),
      samples: 16,
      sequenceLength: 256,
    }),
    repair: { method: Repair.FIT, damping: 0.01, iterations: 1, targets: RepairTargets.OWN },
  });
  const report = await prune(cluster.client, 'secure', { ...spec, recordTrace: true });
  expect(report.projections).toHaveLength(24);
  expect(report.nodes).toHaveLength(2);
  let shown = await readFile(join(output, 'secateur.json'), 'utf8');
  for await (const part of cluster.client.getTrace('secure')) shown += Buffer.from(part).toString();
  for (const secret of [alice.token, 'authorization', 'Bearer']) expect(shown).not.toContain(secret);
  const audit = cluster.orchestrator.output
    .split('\n')
    .filter((line) => line.includes('"audit":true'))
    .map((line) => JSON.parse(line) as object);
  expect(audit).toMatchObject([
    { caller: 'alice', tenant: 'research', method: 'secateur.v1.PruningService/CreateJob', jobId: 'secure', outcome: 'OK' },
  ]);
});

describe('the orchestrator', () => {
  test.each<[string, () => Promise<PruningClientOptions>, object]>([
    [
      'a caller without token and certificate',
      () => Promise.resolve({}),
      { reason: 'UNAUTHENTICATED', message: expect.stringContaining('SECATEUR_TOKEN') },
    ],
    ['a wrong token', () => Promise.resolve({ token: newToken({ ...alice.entry }).token }), { reason: 'UNAUTHENTICATED' }],
    ['a hash in place of a token', () => Promise.resolve({ token: alice.entry.sha256 }), { reason: 'UNAUTHENTICATED' }],
    [
      'a kernel node',
      async () => ({ tls: await open(nodeFiles) }),
      { reason: 'PERMISSION_DENIED', message: expect.stringContaining('kernel-node') },
    ],
    ['an orchestrator', async () => ({ tls: await open(orchestratorFiles) }), { reason: 'PERMISSION_DENIED' }],
    [
      'a certificate without a role',
      async () => ({ tls: await open(await issue('someone', { commonName: 'administrator' })) }),
      { reason: 'UNAUTHENTICATED', message: expect.stringContaining('names no role') },
    ],
    [
      'a certificate of another authority',
      async () => {
        const other = await CertificateAuthority.create(folder.path, 'other');
        return { tls: await open(await issue('foreign', { uris: [`${DOMAIN}/administrator/eve`] }, other)) };
      },
      { reason: 'UNAUTHENTICATED' },
    ],
  ])('refuses %s', async (_who, options, error) => {
    const client = await as(await options());
    await expect(client.createJob({ jobId: 'refused', spec: pruneSpec('books-opt', join(folder.path, 'refused')) })).rejects.toMatchObject(
      error,
    );
    await expect(client.listNodes()).rejects.toMatchObject(error);
    await expect((await as({ token: admin.token })).getJob('refused')).rejects.toMatchObject({ reason: 'NOT_FOUND' });
  });

  test('knows users by their certificates too, and shows them the jobs of their tenant', async () => {
    const user = async (name: string, uri: string): Promise<PruningClient> =>
      as({ tls: await open(await issue(name, { uris: [`${DOMAIN}/${uri}`], addresses: [] })) });
    for (const client of [
      await user('bob', 'user/research/bob'),
      await user('root', 'administrator/root'),
      await as({ token: admin.token }),
    ]) {
      expect(await client.getJob('secure')).toMatchObject({ id: 'secure' });
    }
    const foreign = await user('mallory', 'user/elsewhere/mallory');
    expect(await foreign.listNodes()).toHaveLength(2);
    await expect(foreign.getJob('secure')).rejects.toMatchObject({ reason: 'NOT_FOUND' });
    await expect(foreign.cancelJob('secure')).rejects.toMatchObject({ reason: 'NOT_FOUND' });
  });

  test('serves bytes to nodes only', async () => {
    const fetch = async (files: TlsFiles): Promise<unknown> =>
      (await channelTo(cluster.address, files)).client(TensorServiceDefinition).fetch({ resource: 'none' }, OPTIONS).next();
    await expect(fetch(nodeFiles)).rejects.toMatchObject({ reason: 'NOT_FOUND' });
    await expect(fetch({ authorities: authority.path })).rejects.toMatchObject({ reason: 'UNAUTHENTICATED' });
    const user = await issue('carol', { uris: [`${DOMAIN}/user/research/carol`], addresses: [] });
    await expect(fetch(user)).rejects.toMatchObject({ reason: 'PERMISSION_DENIED' });
  });

  test('tells anybody whether it is healthy', async () => {
    expect(await checkHealth(await channelTo(cluster.address, { authorities: authority.path }), '', 10_000)).toBe(true);
  });

  test('lets go of paths outside its roots, however they are written', async () => {
    await symlink('/etc', join(folder.path, 'link'));
    const paths = ['/etc', join(folder.path, 'link'), `${folder.path}/../../etc`, '../../../../../../etc'];
    for (const path of paths) {
      const output = pruneSpec('books-opt', join(path, 'pruned'));
      await expect(cluster.client.createJob({ spec: output })).rejects.toMatchObject({ reason: 'PATH_NOT_ALLOWED' });
      const model = pruneSpec('books-opt', join(folder.path, 'never'), { model: path });
      await expect(cluster.client.createJob({ spec: model })).rejects.toMatchObject({
        reason: 'PATH_NOT_ALLOWED',
      });
    }
    // A URL is a relative path like any other, and what it names is not there.
    const url = pruneSpec('books-opt', join(folder.path, 'never'), { model: `file://${modelPath('books-opt')}` });
    const { id } = await cluster.client.createJob({ spec: url });
    expect(await cluster.client.waitForJob(id)).toMatchObject({ state: JobState.FAILED });
  });

  test('uses a token file that was exchanged, without a restart', async () => {
    const next = newToken({ name: 'dave', tenant: 'research', role: 'user' });
    const dave = await as({ token: next.token });
    await expect(dave.listNodes()).rejects.toMatchObject({ reason: 'UNAUTHENTICATED' });
    await writeFile(tokens, JSON.stringify([alice.entry, admin.entry, next.entry]));
    const accepted = (client: PruningClient): Promise<boolean> =>
      client.listNodes().then(
        () => true,
        () => false,
      );
    await eventually(() => accepted(dave), 'the new token is known');
    await writeFile(tokens, JSON.stringify([alice.entry, admin.entry]));
    await eventually(async () => !(await accepted(dave)), 'the token is known no more');
    // A file that makes no sense leaves what was known.
    await writeFile(tokens, '[{');
    await eventually(() => cluster.orchestrator.output.includes('the changed token file is not used'), 'the broken file was seen');
    expect(await accepted(await as({ token: alice.token }))).toBe(true);
    await writeFile(tokens, JSON.stringify([alice.entry, admin.entry]));
  });

  test('keeps tokens and keys out of its log', async () => {
    const key = (await readFile(orchestratorFiles.privateKey ?? '', 'utf8')).split('\n')[1] ?? '';
    const log = cluster.orchestrator.output + cluster.nodes.map(({ output }) => output).join('');
    expect(log).toContain('call refused');
    for (const secret of [alice.token, admin.token, key.slice(0, 30)]) expect(log).not.toContain(secret);
  });
});

describe('a kernel node', () => {
  test.each<[string, () => Promise<TlsFiles>, object]>([
    ['a caller without a certificate', () => Promise.resolve({ authorities: authority.path }), { reason: 'UNAUTHENTICATED' }],
    ['another kernel node', () => Promise.resolve(nodeFiles), { reason: 'PERMISSION_DENIED' }],
    ['a user', () => issue('erin', { uris: [`${DOMAIN}/user/research/erin`], addresses: [] }), { reason: 'PERMISSION_DENIED' }],
    ['an administrator', () => issue('root', { uris: [`${DOMAIN}/administrator/root`], addresses: [] }), { reason: 'PERMISSION_DENIED' }],
  ])('refuses %s', async (_who, files, error) => {
    const channel = await channelTo(await nodeAddress(), await files());
    await expect(channel.client(KernelServiceDefinition).describeNode({}, OPTIONS)).rejects.toMatchObject(error);
  });

  test('knows an orchestrator also by its DNS name', async () => {
    const files = await issue('named', { names: ['orchestrator.secateur.svc'], addresses: [] });
    const channel = await channelTo(await nodeAddress(), files);
    expect((await channel.client(KernelServiceDefinition).describeNode({}, OPTIONS)).name).toMatch(/^node-/);
  });
});

describe('the command', () => {
  test('reaches a cluster with certificates and a token, from options or the environment', async () => {
    const endpoint = ['--endpoint', cluster.address];
    const tokenFile = join(folder.path, 'alice.token');
    await writeFile(tokenFile, `${alice.token}\n`);
    const byOptions = await runCommand(['nodes', ...endpoint, '--tls-ca', authority.path, '--token-file', tokenFile, '--json']);
    expect(byOptions).toMatchObject({ exitCode: 0, stdout: expect.stringContaining('node-1') });
    const variables = { SECATEUR_TLS_CA: authority.path, SECATEUR_TOKEN: alice.token };
    expect(await runCommand(['jobs', 'list', ...endpoint], undefined, variables)).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining('secure'),
    });
    const none = await runCommand(
      ['jobs', 'list', '--state', 'paused,planning', '--limit', '5', '--json', ...endpoint],
      undefined,
      variables,
    );
    expect(none).toMatchObject({ exitCode: 0, stdout: expect.stringMatching(/^\{\s*"jobs": \[\]\s*\}\s*$/) });
    const withoutToken = await runCommand(['nodes', ...endpoint, '--tls-ca', authority.path]);
    expect(withoutToken).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('does not tell who makes it') });
    const inTheClear = await runCommand(['nodes', '--endpoint', '10.0.0.1:1'], undefined, { SECATEUR_TOKEN: alice.token });
    expect(inTheClear).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('in the clear') });
    for (const { stdout, stderr } of [byOptions, withoutToken, inTheClear]) expect(stdout + stderr).not.toContain(alice.token);
  });

  test('does not listen where others reach it, unless told so', async () => {
    const node = await runCommand(['node', '--listen', '0.0.0.0:0', '--memory', '64MiB', '--threads', '1']);
    expect(node).toMatchObject({ exitCode: 2, stderr: expect.stringMatching(/Will not listen at 0\.0\.0\.0:0.*--tls-cert.*--insecure/) });
    const serve = await runCommand([
      'serve',
      '--listen',
      '[::]:0',
      '--node',
      '127.0.0.1:1',
      '--root',
      folder.path,
      '--tokens',
      tokens,
      '--state',
      'memory',
    ]);
    expect(serve).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('Will not listen at [::]:0') });
    const http = [
      '--listen',
      '127.0.0.1:0',
      '--http-listen',
      '0.0.0.0:0',
      '--node',
      '127.0.0.1:1',
      '--root',
      folder.path,
      '--state',
      'memory',
    ];
    expect(await runCommand(['serve', ...http])).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('0.0.0.0:0 for HTTP') });
  });

  test('makes tokens of which a file holds only the hash', async () => {
    const { exitCode, stdout } = await runCommand(['token', '--name', 'frank', '--tenant', 'research', '--json']);
    expect(exitCode).toBe(0);
    const { token, entry } = JSON.parse(stdout) as { token: string; entry: object };
    expect(token).toMatch(/^secateur_[\w-]{43}$/);
    expect(entry).toMatchObject({ name: 'frank', tenant: 'research', role: 'user', sha256: expect.stringMatching(/^[0-9a-f]{64}$/) });
    expect(JSON.stringify(entry)).not.toContain(token);
    const file = join(folder.path, 'made.json');
    for (const name of ['grace', 'heidi']) {
      const made = await runCommand(['token', '--name', name, '--role', 'administrator', '--tokens', file]);
      expect(made).toMatchObject({ exitCode: 0, stdout: expect.stringMatching(/^secateur_[\w-]{43}\n$/) });
      expect(await readFile(file, 'utf8')).not.toContain(made.stdout.trim());
    }
    expect(JSON.parse(await readFile(file, 'utf8'))).toMatchObject([
      { name: 'grace' },
      { name: 'heidi', role: 'administrator', tenant: 'default' },
    ]);
  });
});

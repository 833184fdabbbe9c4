/** TLS of servers and channels: who is trusted, files that are wrong, files that change. */
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { connect as connectHttp2 } from 'node:http2';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { TensorServiceDefinition } from '@secateur/proto/tensor_service';
import {
  checkListenAddress,
  connect,
  RpcServer,
  TlsCredentials,
  type CallEvidence,
  type Channel,
  type TlsFiles,
  type TlsLogger,
} from '@secateur/rpc';
import { CertificateAuthority, type CertificateFiles } from '../support/certificates.js';
import { eventually } from '../support/jobs.js';
import { temporaryFolder, type TemporaryFolder } from '../support/paths.js';

const CALLER = { name: 'test', tenant: 'test', administrator: false };

let folder: TemporaryFolder;
let authority: CertificateAuthority;
let other: CertificateAuthority;
let serverFiles: CertificateFiles;
let clientFiles: CertificateFiles;
beforeAll(async () => {
  folder = await temporaryFolder();
  authority = await CertificateAuthority.create(folder.path, 'authority');
  other = await CertificateAuthority.create(folder.path, 'other');
  serverFiles = await authority.issue('server');
  clientFiles = await authority.issue('client', { uris: ['spiffe://secateur.test/secateur/kernel-node'], addresses: [] });
});
afterAll(() => folder[Symbol.asyncDispose]());

interface SecureServer extends AsyncDisposable {
  readonly port: number;
  /** What callers brought, in order. */
  readonly evidence: CallEvidence[];
  connect(files: TlsFiles | undefined, host?: string): Promise<Channel>;
}

async function startServer(files: TlsFiles, logger?: TlsLogger): Promise<SecureServer> {
  const tls = await TlsCredentials.load(files, logger);
  const opened: Disposable[] = [tls];
  const evidence: CallEvidence[] = [];
  const server = new RpcServer({
    tls,
    access: {
      admit: (call) => {
        evidence.push(call);
        return Promise.resolve(CALLER);
      },
    },
  });
  server.addService(TensorServiceDefinition, {
    async *fetch({ offset }) {
      yield { offset };
    },
  });
  const { port } = await server.listen('127.0.0.1:0');
  return {
    port,
    evidence,
    connect: async (clientFilesGiven, host = '127.0.0.1') => {
      const clientTls = clientFilesGiven && (await TlsCredentials.load(clientFilesGiven));
      const channel = connect(`${host}:${port}`, { kind: 'control', tls: clientTls });
      opened.push({ [Symbol.dispose]: () => channel.close() }, ...(clientTls === undefined ? [] : [clientTls]));
      return channel;
    },
    [Symbol.asyncDispose]: async () => {
      for (const one of opened) one[Symbol.dispose]();
      await server.shutdown({ graceMs: 1_000 });
    },
  };
}

async function call(channel: Channel): Promise<number> {
  for await (const { offset } of channel.client(TensorServiceDefinition).fetch({ offset: 7 }, { timeoutMs: 5_000 })) return offset;
  return 0;
}

describe('a server with certificates', () => {
  test('sees the certificate of a caller, by its names and by its address', async () => {
    await using server = await startServer({ ...serverFiles, authorities: authority.path });
    expect(await call(await server.connect({ ...clientFiles, authorities: authority.path }))).toBe(7);
    expect(server.evidence).toMatchObject([
      {
        method: 'secateur.v1.TensorService/Fetch',
        certificate: { commonName: 'client', alternativeNames: 'URI:spiffe://secateur.test/secateur/kernel-node' },
      },
    ]);
  });

  test('does not see one of another authority, one that has expired, or none', async () => {
    await using server = await startServer({ ...serverFiles, authorities: authority.path });
    const foreign = await other.issue('foreign');
    const expired = await authority.issue('expired', { fromDays: -2, toDays: -1 });
    for (const files of [{ ...foreign, authorities: authority.path }, { authorities: authority.path }])
      expect(await call(await server.connect(files))).toBe(7);
    // A process of ours does not even begin with one that has expired; others do.
    const session = connectHttp2(`https://127.0.0.1:${server.port}`, {
      ca: await readFile(authority.path),
      cert: await readFile(expired.certificate),
      key: await readFile(expired.privateKey),
    });
    const path = '/secateur.v1.TensorService/Fetch';
    await once(
      session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers', 'grpc-timeout': '5S' }),
      'response',
    );
    session.destroy();
    expect(server.evidence.map(({ certificate }) => certificate)).toEqual([undefined, undefined, undefined]);
    await expect(TlsCredentials.load(expired)).rejects.toMatchObject({
      reason: 'INVALID_REQUEST',
      message: expect.stringContaining('expired on'),
    });
  });

  test('is not trusted by callers of another authority or at another name, who are told at once', async () => {
    const elsewhere = await authority.issue('elsewhere', { addresses: ['127.0.0.2'], names: ['elsewhere.test'] });
    await using server = await startServer({ ...elsewhere, authorities: authority.path });
    for (const authorities of [other.path, authority.path, 'system']) {
      for (const host of ['127.0.0.1', 'localhost']) {
        const channel = await server.connect({ authorities }, host);
        const started = performance.now();
        await expect(channel.waitForReady(10_000)).rejects.toMatchObject({
          reason: 'UNAUTHENTICATED',
          message: expect.stringContaining('--tls-ca'),
        });
        expect(performance.now() - started).toBeLessThan(5_000);
      }
    }
    expect(server.evidence).toEqual([]);
  });

  test('cannot be spoken to in the clear, and a client with certificates does not speak in the clear', async () => {
    await using server = await startServer({ ...serverFiles, authorities: authority.path });
    await expect((await server.connect(undefined)).waitForReady(700)).rejects.toMatchObject({
      reason: 'UNAVAILABLE',
      message: expect.stringContaining('TLS'),
    });
    const plain = new RpcServer();
    const { port } = await plain.listen('127.0.0.1:0');
    using tls = await TlsCredentials.load({ authorities: authority.path });
    const channel = connect(`127.0.0.1:${port}`, { kind: 'control', tls });
    await expect(channel.waitForReady(5_000)).rejects.toMatchObject({ reason: 'UNAUTHENTICATED' });
    channel.close();
    await plain.shutdown({ graceMs: 100 });
  });

  test('uses certificates and authorities that were exchanged, without a restart, and keeps those before while the files do not fit', async () => {
    const files = { certificate: join(folder.path, 'changing.crt'), privateKey: join(folder.path, 'changing.key') };
    const authorities = join(folder.path, 'changing-ca.pem');
    await copyFile(serverFiles.certificate, files.certificate);
    await copyFile(serverFiles.privateKey, files.privateKey);
    await copyFile(authority.path, authorities);
    const warnings: string[] = [];
    await using server = await startServer(
      { ...files, authorities },
      { info: () => undefined, warn: (_fields, text) => warnings.push(text) },
    );
    const use = async <Result>(clientTlsFiles: TlsFiles, work: (channel: Channel) => Promise<Result>): Promise<Result> => {
      using tls = await TlsCredentials.load(clientTlsFiles);
      const channel = connect(`127.0.0.1:${server.port}`, { kind: 'control', tls });
      return await work(channel).finally(() => channel.close());
    };
    const trusted = (path: string): Promise<boolean> =>
      use({ authorities: path }, (channel) =>
        channel.waitForReady(2_000).then(
          () => true,
          () => false,
        ),
      );
    expect(await trusted(authority.path)).toBe(true);
    const next = await other.issue('next');
    await copyFile(next.certificate, files.certificate);
    // The key does not belong to it yet.
    await eventually(() => warnings.includes('changed TLS files are not used'), 'the new certificate has been seen');
    expect(await trusted(authority.path)).toBe(true);
    await copyFile(next.privateKey, files.privateKey);
    await eventually(() => trusted(other.path), 'the new certificate is used');
    await copyFile(other.path, authorities);
    const byOther = { ...(await other.issue('by-other')), authorities: other.path };
    await eventually(async () => {
      await use(byOther, call);
      return server.evidence.at(-1)?.certificate !== undefined;
    }, 'callers of the new authority are known');
    await use({ ...clientFiles, authorities: other.path }, call);
    expect(server.evidence.at(-1)?.certificate).toBeUndefined();
  });
});

describe('files', () => {
  test('that changed and are of no use yet are used when they are', async () => {
    const name = 'renewed';
    const first = await authority.issue(name);
    const told: string[] = [];
    const logger: TlsLogger = { info: (_fields, text) => told.push(text), warn: (_fields, text) => told.push(text) };
    using tls = await TlsCredentials.load({ ...first, authorities: authority.path }, logger, 100);
    const serials: string[] = [];
    using _follow = tls.followIdentity(({ certificate }) => serials.push(new X509Certificate(certificate).serialNumber));
    // By a machine whose clock is ahead of this one's.
    const secondsAhead = 6;
    const { certificate } = await authority.issue(name, { fromDays: secondsAhead / 86_400 });
    await eventually(() => told.includes('changed TLS files are not used'), 'the new certificate has been seen');
    await eventually(() => told.at(-1) === 'TLS files were read again', 'its time has begun');
    expect(serials.at(-1)).toBe(new X509Certificate(await readFile(certificate)).serialNumber);
    expect(serials).toHaveLength(2);
  });

  test.each<[string, () => Promise<TlsFiles>, RegExp]>([
    ['missing', () => Promise.resolve({ authorities: '/none.pem' }), /--tls-ca \/none\.pem cannot be read: .*ENOENT/],
    ['not PEM', async () => ({ authorities: await write('text.pem', 'no certificate') }), /--tls-ca .* holds no certificate in PEM/],
    [
      'damaged',
      async () => ({ authorities: await write('damaged.pem', '-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n') }),
      /--tls-ca .* cannot be parsed/,
    ],
    ['a certificate without its key', () => Promise.resolve({ certificate: serverFiles.certificate }), /--tls-key is missing/],
    ['a key without its certificate', () => Promise.resolve({ privateKey: serverFiles.privateKey }), /--tls-cert is missing/],
    [
      'a key of another certificate',
      () => Promise.resolve({ certificate: serverFiles.certificate, privateKey: clientFiles.privateKey }),
      /--tls-key .*client\.key is not the key of the first certificate in .*server\.crt/,
    ],
    [
      'a certificate in place of the key',
      () => Promise.resolve({ certificate: serverFiles.certificate, privateKey: serverFiles.certificate }),
      /--tls-key .* holds no private key in PEM/,
    ],
    ['expired', () => authority.issue('old', { fromDays: -3, toDays: -2 }), /--tls-cert the certificate in .*old\.crt expired on/],
    [
      'not valid yet',
      () => authority.issue('young', { fromDays: 2, toDays: 3 }),
      /--tls-cert the certificate in .*young\.crt is valid only from/,
    ],
  ])('%s', async (_what, files, message) => {
    await expect(files().then((paths) => TlsCredentials.load(paths))).rejects.toMatchObject({
      reason: 'INVALID_REQUEST',
      message: expect.stringMatching(message),
    });
  });

  test('errors hold nothing of a key', async () => {
    const key = await readFile(clientFiles.privateKey, 'utf8');
    const broken = await write('broken.key', key.replace('END', 'ENDE'));
    const error = await TlsCredentials.load({ certificate: clientFiles.certificate, privateKey: broken }).catch(
      (reason: unknown) => reason,
    );
    const [, secret = ''] = key.split('\n');
    expect(secret.length).toBeGreaterThan(30);
    expect(`${String(error)} ${String((error as Error).cause)}`).not.toContain(secret.slice(0, 20));
  });
});

describe('addresses', () => {
  test.each(['127.0.0.1:7400', '127.8.0.1:0', '[::1]:7400', 'localhost:7400', 'LOCALHOST:1'])(
    '%s may be listened at by anybody',
    (address) => {
      expect(() => checkListenAddress(address, { verifiesCallers: false, insecure: false })).not.toThrow();
    },
  );

  test.each([
    '0.0.0.0:7400',
    '[::]:7400',
    '10.0.0.1:7400',
    '127.evil.test:7400',
    'localhost.evil.test:7400',
    '128.0.0.1:1',
    '[::ffff:10.0.0.1]:1',
  ])('%s needs certificates or --insecure', (address) => {
    expect(() => checkListenAddress(address, { verifiesCallers: false, insecure: false })).toThrow(/--tls-cert.*--insecure/);
    expect(() => checkListenAddress(address, { verifiesCallers: true, insecure: false })).not.toThrow();
    expect(() => checkListenAddress(address, { verifiesCallers: false, insecure: true })).not.toThrow();
  });

  test('a token goes to other machines over TLS only', async () => {
    expect(() => connect('10.0.0.1:7400', { kind: 'control', token: 'secret-token' })).toThrow(/not sent to 10\.0\.0\.1:7400 in the clear/);
    connect('127.0.0.1:7400', { kind: 'control', token: 'secret-token' }).close();
    using tls = await TlsCredentials.load({ authorities: authority.path });
    connect('10.0.0.1:7400', { kind: 'control', tls, token: 'secret-token' }).close();
  });

  test.each(['secret token', 'secret\ntoken', 'secret\u0000token', 'sécret', ''])('%j is not sent as a token, nor shown', async (token) => {
    const channel = connect('127.0.0.1:7400', { kind: 'control', token });
    const error = await call(channel).catch((reason: unknown) => reason);
    channel.close();
    expect(error).toMatchObject({ reason: 'INVALID_REQUEST', message: expect.not.stringContaining('cret') });
  });
});

async function write(name: string, content: string): Promise<string> {
  const path = join(folder.path, name);
  await writeFile(path, content);
  return path;
}

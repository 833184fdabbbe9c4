/** Jobs as JSON where others reach them: HTTPS with the certificate of the service, for callers with tokens. */
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { request, type RequestOptions } from 'node:https';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { TLSSocket } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { newToken } from '@secateur/access';
import { CertificateAuthority } from '../support/certificates.js';
import { ServiceProcess } from '../support/cluster.js';
import { runCommand } from '../support/command.js';
import { eventually } from '../support/jobs.js';
import { temporaryFolder, type TemporaryFolder } from '../support/paths.js';

const alice = newToken({ name: 'alice', tenant: 'research', role: 'user' });

let folder: TemporaryFolder;
let authority: CertificateAuthority;
let certified: string[];
let tokens: string[];
beforeAll(async () => {
  folder = await temporaryFolder();
  authority = await CertificateAuthority.create(folder.path, 'authority');
  const { certificate, privateKey } = await authority.issue('orchestrator');
  certified = ['--tls-cert', certificate, '--tls-key', privateKey];
  tokens = ['--tokens', join(folder.path, 'tokens.json')];
  await writeFile(tokens[1]!, JSON.stringify([alice.entry]));
});
afterAll(() => folder[Symbol.asyncDispose]());

function serveArguments(httpListen: string, options: readonly string[]): string[] {
  const places = ['--state', 'memory', '--node', '127.0.0.1:1', '--root', folder.path];
  return ['serve', '--listen', '127.0.0.1:0', '--http-listen', httpListen, ...places, ...options];
}

interface Answer {
  readonly status: number | undefined;
  readonly body: string;
  /** Serial number of the server's certificate. */
  readonly serial: string;
}

async function get(url: string, options: RequestOptions = {}): Promise<Answer> {
  const ca = await readFile(authority.path);
  return new Promise((resolve, reject) => {
    const sent = request(url, { ca, agent: false, ...options }, (response) => {
      const { serialNumber } = (response.socket as TLSSocket).getPeerCertificate();
      text(response).then((body) => resolve({ status: response.statusCode, body, serial: serialNumber }), reject);
    });
    sent.once('error', reject).end();
  });
}

describe('a service with a certificate and tokens', () => {
  let service: ServiceProcess;
  let url: string;
  beforeAll(async () => {
    const started = await ServiceProcess.start(serveArguments('0.0.0.0:0', [...certified, ...tokens]));
    service = started.process;
    url = `https://127.0.0.1:${started.httpAddress!.split(':')[1]!}`;
  });
  afterAll(() => service.signal('SIGTERM'));

  test('answers those that show a token, and nobody in the clear', async () => {
    const headers = { Authorization: `Bearer ${alice.token}` };
    expect(await get(`${url}/v1/jobs`, { headers })).toMatchObject({ status: 200, body: expect.stringContaining('{') });
    const stranger = await get(`${url}/v1/jobs`);
    expect([stranger.status, JSON.parse(stranger.body)]).toEqual([
      401,
      expect.objectContaining({ message: expect.stringMatching(/token/) }),
    ]);
    await expect(fetch(`${url.replace('https:', 'http:')}/v1/jobs`, { headers })).rejects.toThrow('fetch failed');
  });

  test('is known by a certificate of its authority, by TLS 1.2 or newer', async () => {
    const other = await CertificateAuthority.create(folder.path, 'other');
    await expect(get(`${url}/healthz`, { ca: await readFile(other.path) })).rejects.toThrow(/certificate/);
    // Allowed by this end, so that it is the server that refuses.
    const old: RequestOptions = { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' };
    await expect(get(`${url}/healthz`, old)).rejects.toThrow(/alert protocol version/);
  });

  test('shows a certificate that was exchanged to the next that come', async () => {
    const { serial } = await get(`${url}/healthz`);
    const renewed = await authority.issue('renewed');
    await copyFile(renewed.certificate, certified[1]!);
    await copyFile(renewed.privateKey, certified[3]!);
    await eventually(async () => (await get(`${url}/healthz`)).serial !== serial, 'the new certificate');
  });
});

test.each([
  ['without a certificate', () => tokens],
  ['without a way to tell callers apart', () => certified],
])('%s nothing but this machine is listened to', async (_, options) => {
  const { exitCode, stderr } = await runCommand(serveArguments('0.0.0.0:0', options()));
  expect(exitCode).toBe(2);
  expect(stderr).toMatch(/Will not listen at 0\.0\.0\.0:0 for HTTP: .*--insecure/);
});

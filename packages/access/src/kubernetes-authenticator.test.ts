/** A real HTTPS server that answers TokenReviews as the API server of Kubernetes does. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { CertificateAuthority } from '../../../tests/support/certificates.js';
import { temporaryFolder, type TemporaryFolder } from '../../../tests/support/paths.js';
import { KubernetesAuthenticator, kubernetesApi } from './kubernetes-authenticator.js';

interface Review {
  readonly path: string | undefined;
  readonly authorization: string | undefined;
  readonly body: { readonly kind: string; readonly spec: { readonly token: string; readonly audiences: readonly string[] } };
}

const encode = (part: object): string => Buffer.from(JSON.stringify(part)).toString('base64url');
const tokenOf = (name: string): string =>
  `${encode({ alg: 'RS256' })}.${encode({ iss: 'https://kubernetes.default.svc', sub: name })}.c2ln`;

let folder: TemporaryFolder;
let server: Server;
let port: number;
let reviews: Review[] = [];
/** What the API knows of each token. */
const known = new Map<string, object>([
  [tokenOf('job'), { authenticated: true, user: { username: 'system:serviceaccount:team-a:pruner' }, audiences: ['secateur'] }],
  [
    tokenOf('api'),
    { authenticated: true, user: { username: 'system:serviceaccount:team-a:pruner' }, audiences: ['https://kubernetes.default.svc'] },
  ],
  [tokenOf('old'), { authenticated: true, user: { username: 'system:serviceaccount:team-a:pruner' } }],
  [tokenOf('human'), { authenticated: true, user: { username: 'jane' }, audiences: ['secateur'] }],
  [tokenOf('forged'), { authenticated: false, error: 'invalid bearer token' }],
]);

beforeAll(async () => {
  folder = await temporaryFolder();
  const authority = await CertificateAuthority.create(folder.path, 'ca');
  await writeFile(join(folder.path, 'ca.crt'), await readFile(authority.path));
  await writeFile(join(folder.path, 'token'), 'own-token\n');
  const { certificate, privateKey } = await authority.issue('api');
  server = createServer({ cert: await readFile(certificate), key: await readFile(privateKey) }, (request, response) => {
    let text = '';
    request.setEncoding('utf8').on('data', (part: string) => (text += part));
    request.once('end', () => {
      const review = JSON.parse(text) as Review['body'];
      reviews.push({ path: request.url, authorization: request.headers.authorization, body: review });
      if (request.headers.authorization !== 'Bearer own-token') response.writeHead(401).end();
      else response.writeHead(201).end(JSON.stringify({ ...review, status: known.get(review.spec.token) ?? {} }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  ({ port } = server.address() as AddressInfo);
});
afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await folder[Symbol.asyncDispose]();
});
beforeEach(() => {
  reviews = [];
});

function create(serviceAccountFolder = folder.path): KubernetesAuthenticator {
  return new KubernetesAuthenticator({ host: '127.0.0.1', port, serviceAccountFolder });
}

describe('tokens of Kubernetes service accounts', () => {
  test('tell the account, and its namespace as the tenant; the API is asked once', async () => {
    const authenticator = create();
    const credentials = { token: tokenOf('job'), certificate: undefined };
    const expected = { name: 'system:serviceaccount:team-a:pruner', tenant: 'team-a', role: 'user' };
    expect(await Promise.all([authenticator.authenticate(credentials), authenticator.authenticate(credentials)])).toEqual([
      expected,
      expected,
    ]);
    expect(await authenticator.authenticate(credentials)).toEqual(expected);
    expect(reviews).toMatchObject([
      {
        path: '/apis/authentication.k8s.io/v1/tokenreviews',
        authorization: 'Bearer own-token',
        body: { kind: 'TokenReview', spec: { token: tokenOf('job'), audiences: ['secateur'] } },
      },
    ]);
  });

  test.each(['api', 'old', 'human', 'forged', 'unknown'])('%s is refused', async (name) => {
    const error = await create()
      .authenticate({ token: tokenOf(name), certificate: undefined })
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({ reason: 'UNAUTHENTICATED' });
    expect((error as Error).message).not.toContain(tokenOf(name));
  });

  test('that are none of Kubernetes never leave this process', async () => {
    expect(await create().authenticate({ token: 'secateur_abc', certificate: undefined })).toBeUndefined();
    expect(reviews).toEqual([]);
  });

  test('cannot be judged when the API is not to be trusted or refuses us, and can later', async () => {
    const elsewhere = join(folder.path, 'elsewhere');
    await mkdir(elsewhere);
    const authority = await CertificateAuthority.create(elsewhere, 'ca');
    await writeFile(join(elsewhere, 'ca.crt'), await readFile(authority.path));
    await writeFile(join(elsewhere, 'token'), 'own-token');
    const authenticator = create(elsewhere);
    const credentials = { token: tokenOf('job'), certificate: undefined };
    await expect(authenticator.authenticate(credentials)).rejects.toMatchObject({ reason: 'UNAVAILABLE' });
    expect(reviews).toEqual([]);
    await writeFile(join(elsewhere, 'ca.crt'), await readFile(join(folder.path, 'ca.crt')));
    await writeFile(join(elsewhere, 'token'), 'wrong-token');
    await expect(authenticator.authenticate(credentials)).rejects.toMatchObject({ reason: 'UNAVAILABLE' });
    await writeFile(join(elsewhere, 'token'), 'own-token');
    expect(await authenticator.authenticate(credentials)).toMatchObject({ tenant: 'team-a' });
  });

  test('many new ones do not flood the API', async () => {
    const authenticator = create();
    const outcomes = await Promise.allSettled(
      Array.from({ length: 30 }, (_, index) => authenticator.authenticate({ token: tokenOf(`guess-${index}`), certificate: undefined })),
    );
    const reasons = outcomes.map((outcome) => (outcome as PromiseRejectedResult).reason as { reason: string });
    expect(reasons.filter(({ reason }) => reason === 'RESOURCE_EXHAUSTED')).toHaveLength(10);
    expect(reviews).toHaveLength(20);
  });

  test('of callers that are known are asked for again, by a clock that nobody sets, while others guess', async () => {
    const authenticator = create();
    const credentials = { token: tokenOf('job'), certificate: undefined };
    await authenticator.authenticate(credentials);
    const day = jest.spyOn(Date, 'now').mockReturnValue(0);
    const elapsed = jest.spyOn(performance, 'now').mockReturnValue(performance.now() + 61_000);
    try {
      await Promise.allSettled(
        Array.from({ length: 30 }, (_, index) => authenticator.authenticate({ token: tokenOf(`guess-${index}`), certificate: undefined })),
      );
      reviews = [];
      expect(await authenticator.authenticate(credentials)).toMatchObject({ tenant: 'team-a' });
      expect(reviews).toHaveLength(1);
    } finally {
      day.mockRestore();
      elapsed.mockRestore();
    }
  });

  test('need a cluster', () => {
    expect(() => kubernetesApi({})).toThrow(/KUBERNETES_SERVICE_HOST/);
    expect(kubernetesApi({ KUBERNETES_SERVICE_HOST: '10.96.0.1', KUBERNETES_SERVICE_PORT: '443' })).toMatchObject({
      host: '10.96.0.1',
      port: 443,
    });
  });
});

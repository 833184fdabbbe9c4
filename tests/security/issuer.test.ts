/** A cluster of one machine whose users an OpenID Connect issuer vouches for: no certificates are needed there. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { PruningClient } from '@secateur/client';
import { TokenSource } from '@secateur/proto/job';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { Cluster } from '../support/cluster.js';
import { prune, pruneSpec } from '../support/jobs.js';
import { fixturePath, withTemporaryFolder } from '../support/paths.js';

let issuer: Server;
let sign: (audience: string) => Promise<string>;
let cluster: Cluster;
beforeAll(async () => {
  const { privateKey, publicKey } = await generateKeyPair('RS256');
  const jwk = await exportJWK(publicKey);
  let url = '';
  issuer = createServer((request, response) => {
    const answer = request.url?.endsWith('openid-configuration') ? { issuer: url, jwks_uri: `${url}/keys` } : { keys: [jwk] };
    response.setHeader('content-type', 'application/json').end(JSON.stringify(answer));
  });
  await new Promise<void>((resolve) => issuer.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(issuer.address() as AddressInfo).port}`;
  sign = (audience) =>
    new SignJWT({ sub: 'alice', team: 'research' })
      .setProtectedHeader({ alg: 'RS256' })
      .setIssuer(url)
      .setAudience(audience)
      .setExpirationTime('10m')
      .sign(privateKey);
  const serve = ['--oidc-issuer', url, '--oidc-audience', 'secateur', '--oidc-tenant-claim', 'team', '--calls-per-second', '20'];
  cluster = await Cluster.start({ nodes: 1, serve, client: { token: await sign('secateur') } });
});
afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
  issuer.close();
});

test('a user with a token prunes, one without or with that of another audience does nothing', () =>
  withTemporaryFolder(async (folder) => {
    const calibration = TokenSource.fromPartial({
      path: fixturePath('calibration', 'books-opt-calibration.safetensors'),
      samples: 8,
      sequenceLength: 256,
    });
    const spec = pruneSpec('books-opt', join(folder, 'pruned'), { calibration });
    expect((await prune(cluster.client, 'by-token', spec)).projections).toHaveLength(24);
    for (const token of [undefined, await sign('another')]) {
      const client = PruningClient.connect(cluster.address, { token });
      await expect(client.getJob('by-token')).rejects.toMatchObject({ reason: 'UNAUTHENTICATED' });
      client.close();
    }
    expect(cluster.orchestrator.output).toContain('"caller":"alice","tenant":"research"');
  }));

test('whoever calls too often is told so', async () => {
  const outcomes = await Promise.allSettled(Array.from({ length: 40 }, () => cluster.client.getJob('by-token')));
  const refused = outcomes.filter(({ status }) => status === 'rejected');
  expect(refused.length).toBeGreaterThanOrEqual(10);
  expect(refused[0]).toMatchObject({ reason: { reason: 'RESOURCE_EXHAUSTED', message: expect.stringContaining('--calls-per-second') } });
});

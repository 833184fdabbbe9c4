/** A real issuer on this machine, which signs real tokens. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { exportJWK, generateKeyPair, SignJWT, type CryptoKey, type JWTPayload } from 'jose';
import { OidcAuthenticator } from './oidc-authenticator.js';

const AUDIENCE = 'secateur';
const CLAIMS = { sub: 'alice', tenant: 'research' };

let server: Server;
let issuer: string;
let key: CryptoKey;
let otherKey: CryptoKey;
let reachable = true;
beforeAll(async () => {
  const pair = await generateKeyPair('ES256');
  key = pair.privateKey;
  otherKey = (await generateKeyPair('ES256')).privateKey;
  const jwk = { ...(await exportJWK(pair.publicKey)), kid: 'first', alg: 'ES256' };
  server = createServer((request, response) => {
    if (!reachable) response.writeHead(503).end();
    else if (request.url === '/.well-known/openid-configuration') response.end(JSON.stringify({ issuer, jwks_uri: `${issuer}/keys` }));
    else response.setHeader('content-type', 'application/json').end(JSON.stringify({ keys: [jwk] }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.close();
});

interface Changes {
  readonly claims?: JWTPayload;
  readonly audience?: string;
  readonly expires?: string | number;
  readonly signedBy?: CryptoKey;
}

function sign({ claims = CLAIMS, audience = AUDIENCE, expires = '1h', signedBy = key }: Changes = {}): Promise<string> {
  const token = new SignJWT(claims).setProtectedHeader({ alg: 'ES256', kid: 'first' }).setIssuer(issuer).setAudience(audience);
  return token.setExpirationTime(expires).sign(signedBy);
}

function authenticate(token: string): ReturnType<OidcAuthenticator['authenticate']> {
  return new OidcAuthenticator({ issuer, audience: AUDIENCE, tenantClaim: 'tenant' }).authenticate({ token, certificate: undefined });
}

const seconds = (): number => Math.floor(Date.now() / 1000);
const encode = (part: object): string => Buffer.from(JSON.stringify(part)).toString('base64url');

describe('tokens of an OpenID Connect issuer', () => {
  test('tell name, tenant and role', async () => {
    expect(await authenticate(await sign())).toEqual({ name: 'alice', tenant: 'research', role: 'user' });
    const administrator = await sign({ claims: { ...CLAIMS, secateur_role: 'administrator' } });
    expect(await authenticate(administrator)).toMatchObject({ role: 'administrator' });
    // Clocks that are a little apart are no reason to refuse.
    expect(await authenticate(await sign({ expires: seconds() - 10 }))).toMatchObject({ name: 'alice' });
  });

  test.each<[string, () => Promise<string>, RegExp]>([
    ['for another audience', () => sign({ audience: 'another' }), /"aud"/],
    ['that have expired', () => sign({ expires: seconds() - 120 }), /"exp"/],
    ['signed by another key', () => sign({ signedBy: otherKey }), /signature/],
    ['of nobody', () => sign({ claims: { tenant: 'research' } }), /"sub"/],
    ['of no tenant', () => sign({ claims: { sub: 'alice' } }), /claim tenant/],
    ['of a tenant that is no name', () => sign({ claims: { sub: 'alice', tenant: '../other' } }), /claim tenant/],
    ['of an unknown role', () => sign({ claims: { ...CLAIMS, secateur_role: 'orchestrator' } }), /secateur_role/],
    [
      'without a signature',
      () => Promise.resolve(`${encode({ alg: 'none' })}.${encode({ ...CLAIMS, iss: issuer, aud: AUDIENCE, exp: seconds() + 60 })}.`),
      /alg/i,
    ],
    [
      'whose content was changed',
      async () => {
        const [header, , signature] = (await sign()).split('.');
        return `${header}.${encode({ ...CLAIMS, sub: 'root', iss: issuer, aud: AUDIENCE, exp: seconds() + 60 })}.${signature}`;
      },
      /signature/,
    ],
  ])('%s are refused', async (_what, make, message) => {
    const token = await make();
    const error = await authenticate(token).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ reason: 'UNAUTHENTICATED', message: expect.stringMatching(message) });
    expect((error as Error).message).not.toContain(token);
  });

  test('of other issuers, and other tokens, are left to others', async () => {
    const foreign = await new SignJWT(CLAIMS).setProtectedHeader({ alg: 'ES256' }).setIssuer('https://elsewhere.test').sign(key);
    expect(await authenticate(foreign)).toBeUndefined();
    expect(await authenticate('secateur_token')).toBeUndefined();
  });

  test('cannot be judged while the issuer is not there, and can once it is', async () => {
    const authenticator = new OidcAuthenticator({ issuer, audience: AUDIENCE, tenantClaim: 'tenant' });
    const token = await sign();
    reachable = false;
    await expect(authenticator.authenticate({ token, certificate: undefined })).rejects.toMatchObject({ reason: 'UNAVAILABLE' });
    reachable = true;
    expect(await authenticator.authenticate({ token, certificate: undefined })).toMatchObject({ name: 'alice' });
  });

  test.each(['http://issuer.test', 'issuer.test', 'file:///etc/passwd'])('%s is no issuer', (unsafe) => {
    expect(() => new OidcAuthenticator({ issuer: unsafe, audience: AUDIENCE, tenantClaim: 'tenant' })).toThrow(
      /--oidc-issuer must be an https/,
    );
  });
});

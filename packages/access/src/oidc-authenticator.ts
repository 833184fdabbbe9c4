import { SecateurError } from '@secateur/core';
import { isLoopback } from '@secateur/rpc';
import { createRemoteJWKSet, errors, jwtVerify, type JWTPayload, type JWTVerifyGetKey } from 'jose';
import { z } from 'zod';
import { TENANT_PATTERN, unauthenticated, type Authenticator, type Credentials, type Identity } from './authenticator.js';
import { USER_ROLES } from './roles.js';
import { issuerOfToken } from './web-token.js';

const TIMEOUT_MS = 5_000;
/** How far the clocks of the issuer and this machine may be apart. */
const CLOCK_TOLERANCE_SECONDS = 30;
/** Signatures by a private key only: with a shared secret, whoever verifies could sign. */
const ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'];
/** Claim that makes an administrator of a caller. */
const ROLE_CLAIM = 'secateur_role';

const discoverySchema = z.object({ issuer: z.string(), jwks_uri: z.string() });
const roleSchema = z.enum(USER_ROLES);

export interface OidcOptions {
  /** URL, exactly as in the tokens. */
  readonly issuer: string;
  readonly audience: string;
  /** Claim that names the tenant. */
  readonly tenantClaim: string;
}

/** Tokens that an OpenID Connect issuer has signed; its keys are found by discovery when the first token comes. */
export class OidcAuthenticator implements Authenticator {
  private keys: Promise<JWTVerifyGetKey> | undefined;

  constructor(private readonly options: OidcOptions) {
    requireSafeUrl(options.issuer, '--oidc-issuer');
  }

  async authenticate({ token }: Credentials): Promise<Identity | undefined> {
    const { issuer, audience } = this.options;
    if (token === undefined || issuerOfToken(token) !== issuer) return undefined;
    const keys = await this.findKeys();
    try {
      const { payload } = await jwtVerify(token, keys, {
        issuer,
        audience,
        algorithms: ALGORITHMS,
        clockTolerance: CLOCK_TOLERANCE_SECONDS,
        requiredClaims: ['exp', 'sub'],
      });
      return this.identityOf(payload);
    } catch (cause) {
      if (cause instanceof SecateurError) throw cause;
      if (isRefusal(cause)) throw unauthenticated(`The token of ${issuer} is not valid: ${cause.message}.`, cause);
      throw new SecateurError('UNAVAILABLE', `The keys of ${issuer} cannot be read; try again later.`, { cause });
    }
  }

  private identityOf(claims: JWTPayload): Identity {
    const { issuer, tenantClaim } = this.options;
    const tenant = claims[tenantClaim];
    if (typeof tenant !== 'string' || !TENANT_PATTERN.test(tenant)) {
      throw unauthenticated(`The token of ${issuer} names no tenant: its claim ${tenantClaim} must be a short plain name.`);
    }
    const role = roleSchema.safeParse(claims[ROLE_CLAIM] ?? 'user');
    if (!role.success) throw unauthenticated(`The claim ${ROLE_CLAIM} of the token of ${issuer} is none of ${USER_ROLES.join(', ')}.`);
    return { name: claims.sub ?? '', tenant, role: role.data };
  }

  private findKeys(): Promise<JWTVerifyGetKey> {
    // One that could not be reached is asked again by the next call.
    this.keys ??= discoverKeys(this.options.issuer).catch((error: unknown) => {
      this.keys = undefined;
      throw error;
    });
    return this.keys;
  }
}

async function discoverKeys(issuer: string): Promise<JWTVerifyGetKey> {
  const url = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
  let configuration: z.infer<typeof discoverySchema>;
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS), redirect: 'error' });
    if (!response.ok) throw new Error(`it answers with status ${response.status}`);
    configuration = discoverySchema.parse(await response.json());
  } catch (cause) {
    throw new SecateurError('UNAVAILABLE', `The configuration of the token issuer cannot be read from ${url}.`, { cause });
  }
  if (configuration.issuer !== issuer) {
    throw new SecateurError(
      'UNAVAILABLE',
      `${url} is of the issuer ${configuration.issuer}, not of ${issuer}; write --oidc-issuer as it does.`,
    );
  }
  return createRemoteJWKSet(requireSafeUrl(configuration.jwks_uri, 'jwks_uri'), { timeoutDuration: TIMEOUT_MS });
}

/** Whether the token is at fault, and not the way to the keys. */
function isRefusal(cause: unknown): cause is errors.JOSEError {
  return cause instanceof errors.JOSEError && !(cause instanceof errors.JWKSTimeout) && cause.code !== 'ERR_JOSE_GENERIC';
}

function requireSafeUrl(text: string, field: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url !== undefined && (url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname)))) return url;
  const description = 'must be an https:// URL; whoever can change what it answers can make tokens';
  throw new SecateurError('INVALID_REQUEST', `The token issuer cannot be used: ${field} ${description}.`, {
    violations: [{ field, description }],
  });
}

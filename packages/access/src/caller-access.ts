import { SecateurError } from '@secateur/core';
import type { AccessControl, CallEvidence, Caller } from '@secateur/rpc';
import type { Logger } from 'pino';
import { RateLimiterMemory } from 'rate-limiter-flexible';
import { unauthenticated, type Authenticator, type Identity } from './authenticator.js';
import { isForServicesOnly, isOpen, isUserRole, mayCall } from './roles.js';

/** Refused calls that are written to the log per second; the rest is only refused. */
const LOGGED_REFUSALS_PER_SECOND = 20;

/** Who makes calls that everybody may make. */
const NOBODY: Caller = { name: 'nobody', tenant: '', administrator: false };

export interface CallerAccessOptions {
  /** Tried in order. */
  readonly authenticators: readonly Authenticator[];
  /** Whether callers can have certificates. Where they cannot, processes of the cluster cannot tell who they are and are not asked. */
  readonly verifiesCertificates: boolean;
  /** Of each user and administrator. */
  readonly callsPerSecond: number;
  readonly logger: Logger;
}

/** Admits calls whose caller is known and may make them, as often as it may. */
export class CallerAccess implements AccessControl {
  private readonly limiter: RateLimiterMemory;
  private readonly refusals = new RateLimiterMemory({ points: LOGGED_REFUSALS_PER_SECOND, duration: 1 });

  constructor(private readonly options: CallerAccessOptions) {
    this.limiter = new RateLimiterMemory({ points: options.callsPerSecond, duration: 1 });
  }

  async admit(call: CallEvidence): Promise<Caller> {
    const { method } = call;
    if (isOpen(method)) return NOBODY;
    if (!this.options.verifiesCertificates && isForServicesOnly(method)) return NOBODY;
    let identity: Identity | undefined;
    try {
      identity = await this.authenticate(call);
      if (!mayCall(identity.role, method)) {
        throw new SecateurError('PERMISSION_DENIED', `${identity.name} is ${withArticle(identity.role)} and may not call ${method}.`);
      }
      if (isUserRole(identity.role)) await this.limit(identity);
    } catch (error) {
      await this.logRefusal(call, identity, error);
      throw error;
    }
    return { name: identity.name, tenant: identity.tenant, administrator: identity.role === 'administrator' };
  }

  private async authenticate({ authorization, certificate }: CallEvidence): Promise<Identity> {
    const token = authorization === undefined ? undefined : bearerToken(authorization);
    if (token === undefined && certificate === undefined) {
      const ways = this.options.verifiesCertificates ? 'a token, or a certificate of the authority this service trusts' : 'a token';
      throw unauthenticated(`The call does not tell who makes it; it needs ${ways} (SECATEUR_TOKEN, --token-file, --tls-cert).`);
    }
    for (const authenticator of this.options.authenticators) {
      const identity = await authenticator.authenticate({ token, certificate });
      if (identity !== undefined) return identity;
    }
    throw unauthenticated('The token is not known to this service, or of a kind that it does not take.');
  }

  private async limit({ name, tenant }: Identity): Promise<void> {
    const { callsPerSecond } = this.options;
    await this.limiter.consume(JSON.stringify([tenant, name])).catch(() => {
      throw new SecateurError(
        'RESOURCE_EXHAUSTED',
        `${name} makes more than ${callsPerSecond} calls per second (--calls-per-second); wait a second.`,
        {
          metadata: { callsPerSecond: String(callsPerSecond) },
        },
      );
    });
  }

  private async logRefusal({ method, peer }: CallEvidence, identity: Identity | undefined, error: unknown): Promise<void> {
    const { logger } = this.options;
    const outcome = error instanceof SecateurError ? error.reason : 'INTERNAL';
    const reason = error instanceof SecateurError ? error.message : '';
    await this.refusals.consume('all').then(
      () => logger.warn({ audit: true, caller: identity?.name, tenant: identity?.tenant, method, peer, outcome, reason }, 'call refused'),
      () => undefined,
    );
  }
}

function bearerToken(authorization: string): string {
  const token = /^Bearer +(?<token>\S+)$/i.exec(authorization)?.groups?.['token'];
  if (token === undefined) throw unauthenticated('The authorization of the call is not `Bearer TOKEN`.');
  return token;
}

function withArticle(role: string): string {
  return `${/^[aeo]/.test(role) ? 'an' : 'a'} ${role}`;
}

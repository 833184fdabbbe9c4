import { TlsCredentials, type AccessControl, type RpcServerOptions, type TlsFiles } from '@secateur/rpc';
import type { Logger } from 'pino';
import { auditCalls } from './audit.js';
import type { Authenticator } from './authenticator.js';
import type { CallerAccessOptions } from './caller-access.js';
import { certificateAuthenticator } from './certificate-authenticator.js';
import type { OidcOptions } from './oidc-authenticator.js';
import type { TokenFile } from './token-file.js';

export interface ServiceSecurityOptions {
  /** Certificate, key and authorities of this process, for callers and for its own calls. Without them everything is in the clear. */
  readonly tls?: TlsFiles;
  /** Listens where others reach it though nothing tells callers apart. */
  readonly insecure: boolean;
}

/** How people and programs tell who they are. */
export interface TokenOptions {
  /** Path of a file of entries. */
  readonly tokens?: string;
  readonly oidc?: OidcOptions;
  /** Takes tokens of Kubernetes service accounts. */
  readonly kubernetesTokens: boolean;
  /** Of each user and administrator. */
  readonly callsPerSecond: number;
}

/** How a service is safe: for its server, and for its connections to others. */
export interface ServiceSecurity extends Disposable {
  readonly tls: TlsCredentials | undefined;
  readonly server: RpcServerOptions;
}

const NO_TOKENS: TokenOptions = { kubernetesTokens: false, callsPerSecond: Number.MAX_SAFE_INTEGER };

/** Reads and checks everything that tells callers apart; nothing is asked for where no option says so. */
export async function openServiceSecurity(
  { tls: files, insecure }: ServiceSecurityOptions,
  logger: Logger,
  tokens: TokenOptions = NO_TOKENS,
): Promise<ServiceSecurity> {
  const tls = files && (await TlsCredentials.load(files, logger));
  const tokenFile = tokens.tokens === undefined ? undefined : await openTokenFile(tokens.tokens, logger);
  const authenticators = [...(tokenFile === undefined ? [] : [tokenFile]), ...(await openIssuers(tokens))];
  const verifiesCertificates = tls?.verifiesCallers === true;
  if (tls !== undefined && authenticators.length === 0 && !verifiesCertificates) {
    logger.warn('callers are not asked who they are: neither --tls-ca nor tokens are given');
  }
  if (authenticators.length > 0 && !verifiesCertificates) {
    logger.warn('without --tls-ca kernel nodes cannot tell who they are: TensorService is open to all who reach this port');
  }
  const access =
    authenticators.length > 0 || verifiesCertificates
      ? await openAccess({
          authenticators: [...authenticators, certificateAuthenticator],
          verifiesCertificates,
          callsPerSecond: tokens.callsPerSecond,
          logger,
        })
      : undefined;
  return {
    tls,
    server: {
      logger,
      insecure,
      onCallEnd: auditCalls(logger),
      ...(tls === undefined ? {} : { tls }),
      ...(access === undefined ? {} : { access }),
    },
    [Symbol.dispose]: () => {
      tls?.[Symbol.dispose]();
      tokenFile?.[Symbol.dispose]();
    },
  };
}

// What few need is loaded only where it is asked for.

async function openAccess(options: CallerAccessOptions): Promise<AccessControl> {
  const { CallerAccess } = await import('./caller-access.js');
  return new CallerAccess(options);
}

async function openTokenFile(path: string, logger: Logger): Promise<TokenFile> {
  const { TokenFile } = await import('./token-file.js');
  return TokenFile.open(path, logger);
}

async function openIssuers({ oidc, kubernetesTokens }: TokenOptions): Promise<Authenticator[]> {
  const authenticators: Authenticator[] = [];
  if (oidc !== undefined) {
    const { OidcAuthenticator } = await import('./oidc-authenticator.js');
    authenticators.push(new OidcAuthenticator(oidc));
  }
  if (kubernetesTokens) {
    const { KubernetesAuthenticator, kubernetesApi } = await import('./kubernetes-authenticator.js');
    authenticators.push(new KubernetesAuthenticator(kubernetesApi()));
  }
  return authenticators;
}

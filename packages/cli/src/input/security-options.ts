import { readFileSync } from 'node:fs';
import type { PruningClientOptions } from '@secateur/client';
import { SecateurError } from '@secateur/core';
import type { ServiceSecurityOptions, TokenOptions } from '@secateur/access';
import { Option } from 'commander';
import type { CheckedCommand } from './checked-command.js';
import { wholeNumber } from './option-parsers.js';

const DEFAULT_CALLS_PER_SECOND = 50;
const DEFAULT_TENANT_CLAIM = 'tenant';

interface TlsFlags {
  readonly tlsCert?: string | undefined;
  readonly tlsKey?: string | undefined;
  readonly tlsCa?: string | undefined;
}

export interface ServiceSecurityFlags extends TlsFlags {
  readonly insecure?: boolean;
}

export interface TokenFlags {
  readonly tokens?: string;
  readonly oidcIssuer?: string;
  readonly oidcAudience?: string;
  readonly oidcTenantClaim: string;
  readonly kubernetesTokens?: boolean;
  readonly callsPerSecond: number;
}

/** How a command reaches an orchestrator. */
export interface ConnectionFlags extends TlsFlags {
  readonly endpoint: string;
  readonly tokenFile?: string | undefined;
}

/** Options of processes that others call. */
export function withServiceSecurity(command: CheckedCommand): CheckedCommand {
  return command
    .option('--tls-cert <file>', 'PEM certificate of this process, for its callers and for its own calls; with --tls-key')
    .option('--tls-key <file>', 'PEM key of --tls-cert')
    .option('--tls-ca <file>', 'PEM certificates of the authorities that callers, and processes called, must be certified by')
    .option('--insecure', 'listen also where others reach it though nothing tells callers apart: the network must keep them out');
}

/** Options that say how people and programs tell who they are. */
export function withTokenOptions(command: CheckedCommand): CheckedCommand {
  return command
    .option('--tokens <file>', 'JSON list of callers with tokens, as secateur token prints them; read again when it changes')
    .option('--oidc-issuer <url>', 'take tokens of this OpenID Connect issuer; with --oidc-audience')
    .option('--oidc-audience <name>', 'audience that its tokens must be for')
    .option('--oidc-tenant-claim <name>', 'claim of its tokens that names the tenant', DEFAULT_TENANT_CLAIM)
    .option('--kubernetes-tokens', 'take tokens of Kubernetes service accounts with the audience secateur; the tenant is the namespace')
    .option('--calls-per-second <n>', 'most calls of each caller, where callers are told apart', wholeNumber(1), DEFAULT_CALLS_PER_SECOND);
}

/** Options of commands that call an orchestrator. */
export function withConnectionSecurity(command: CheckedCommand): CheckedCommand {
  return command
    .addOption(
      new Option('--tls-ca <file>', 'use TLS: PEM certificates of the authorities of the orchestrator, or system').env('SECATEUR_TLS_CA'),
    )
    .addOption(new Option('--tls-cert <file>', 'PEM certificate that tells the orchestrator who calls').env('SECATEUR_TLS_CERT'))
    .addOption(new Option('--tls-key <file>', 'PEM key of --tls-cert').env('SECATEUR_TLS_KEY'))
    .addOption(
      new Option('--token-file <file>', 'file with the token that tells who calls (or SECATEUR_TOKEN)').env('SECATEUR_TOKEN_FILE'),
    );
}

export function toServiceSecurity({ insecure = false, ...flags }: ServiceSecurityFlags): ServiceSecurityOptions {
  const tls = toTlsFiles(flags);
  return { insecure, ...(tls === undefined ? {} : { tls }) };
}

/** INVALID_REQUEST when options that need each other are not together. */
export function toTokenOptions({
  tokens,
  oidcIssuer,
  oidcAudience,
  oidcTenantClaim,
  kubernetesTokens = false,
  callsPerSecond,
}: TokenFlags): TokenOptions {
  if ((oidcIssuer === undefined) !== (oidcAudience === undefined)) {
    const [missing, given] = oidcIssuer === undefined ? ['--oidc-issuer', '--oidc-audience'] : ['--oidc-audience', '--oidc-issuer'];
    throw new SecateurError('INVALID_REQUEST', `${missing} is missing; ${given} needs it.`);
  }
  const oidc =
    oidcIssuer === undefined || oidcAudience === undefined
      ? undefined
      : { issuer: oidcIssuer, audience: oidcAudience, tenantClaim: oidcTenantClaim };
  return { kubernetesTokens, callsPerSecond, ...(tokens === undefined ? {} : { tokens }), ...(oidc === undefined ? {} : { oidc }) };
}

/** Reads the certificates; the token is read for each call, since it may be exchanged meanwhile. */
export async function openConnectionSecurity({ tokenFile, ...flags }: Omit<ConnectionFlags, 'endpoint'>): Promise<PruningClientOptions> {
  const files = toTlsFiles(flags);
  const token = tokenFile === undefined ? process.env['SECATEUR_TOKEN'] || undefined : () => readToken(tokenFile);
  if (typeof token === 'function') token();
  if (files === undefined) return { tls: undefined, token };
  // Loads gRPC, which --help need not wait for.
  const { TlsCredentials } = await import('@secateur/client');
  return { tls: await TlsCredentials.load(files), token };
}

function readToken(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (cause) {
    const description = `${path} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`;
    throw new SecateurError('INVALID_REQUEST', `There is no token: --token-file ${description}.`, {
      cause,
      violations: [{ field: '--token-file', description }],
    });
  }
}

function toTlsFiles({ tlsCert, tlsKey, tlsCa }: TlsFlags): ServiceSecurityOptions['tls'] {
  if (tlsCert === undefined && tlsKey === undefined && tlsCa === undefined) return undefined;
  return {
    ...(tlsCert === undefined ? {} : { certificate: tlsCert }),
    ...(tlsKey === undefined ? {} : { privateKey: tlsKey }),
    ...(tlsCa === undefined ? {} : { authorities: tlsCa }),
  };
}

import type { CallerCertificate } from '@secateur/rpc';
import { DEFAULT_TENANT, TENANT_PATTERN, unauthenticated, type Authenticator, type Identity } from './authenticator.js';
import type { Role } from './roles.js';

/** One name of the list that node:crypto makes; names with special characters are in quotes there, and none of ours has any. */
const NAME_PATTERN = /(?<kind>[A-Za-z ]+):(?<value>"(?:[^"\\]|\\.)*"|[^,]*)(?:, |$)/gy;
const SPIFFE_PATTERN = /^spiffe:\/\/[a-z0-9._-]+\/secateur\/(?<path>[A-Za-z0-9._/-]+)$/;
/** orchestrator, orchestrator-0, secateur-kernel-node-3: as Deployments and StatefulSets name what they make. */
const SERVICE_PATTERN = /^(?:secateur-)?(?<role>orchestrator|kernel-node)(?:-\d+)?$/;

/** Certificates of the authorities of this service. */
export const certificateAuthenticator: Authenticator = {
  authenticate: async ({ certificate, token }) =>
    certificate === undefined || token !== undefined ? undefined : identityOfCertificate(certificate),
};

/**
 * Who a certificate is of. A URI decides where there is one:
 * `spiffe://DOMAIN/secateur/orchestrator`, `…/kernel-node`, `…/user/TENANT/NAME` or `…/administrator/NAME`.
 * Otherwise the DNS names, or else the common name, say whether it is of an orchestrator or a kernel node.
 */
export function identityOfCertificate({ commonName, alternativeNames }: CallerCertificate): Identity {
  const names = parseNames(alternativeNames);
  const uris = names.filter(({ kind }) => kind === 'URI').map(({ value }) => value);
  const dns = names.filter(({ kind }) => kind === 'DNS').map(({ value }) => value);
  const found = uris.length > 0 ? uris.map(identityOfUri) : (dns.length > 0 ? dns : [commonName]).map(identityOfName);
  const identities = found.filter((identity) => identity !== undefined);
  const [identity, ...others] = identities;
  const shown = [...uris, ...dns, commonName].join(', ');
  if (identity === undefined)
    throw unauthenticated(`The certificate of ${shown} names no role; see docs/security.md for the names that do.`);
  if (others.some(({ role, tenant }) => role !== identity.role || tenant !== identity.tenant)) {
    throw unauthenticated(`The certificate of ${shown} names more than one role; each role needs its own.`);
  }
  return identity;
}

function identityOfUri(uri: string): Identity | undefined {
  const parts = SPIFFE_PATTERN.exec(uri)?.groups?.['path']?.split('/') ?? [];
  const [role, first = '', second = ''] = parts;
  if (parts.some((part) => part === '' || part === '.' || part === '..')) return undefined;
  if ((role === 'orchestrator' || role === 'kernel-node') && parts.length === 1) return { name: uri, tenant: DEFAULT_TENANT, role };
  if (role === 'user' && parts.length === 3 && TENANT_PATTERN.test(first)) return { name: second, tenant: first, role };
  if (role === 'administrator' && parts.length === 2) return { name: first, tenant: DEFAULT_TENANT, role };
  return undefined;
}

/** Of `*.kernel-node.example.svc` the second label says what it is, of `kernel-node-0.kernel-node.example.svc` the first. */
function identityOfName(name: string): Identity | undefined {
  const [label = ''] = name.replace(/^\*\./, '').split('.');
  const role = SERVICE_PATTERN.exec(label)?.groups?.['role'] as Role | undefined;
  return role && { name, tenant: DEFAULT_TENANT, role };
}

function parseNames(alternativeNames: string): { readonly kind: string; readonly value: string }[] {
  return [...alternativeNames.matchAll(NAME_PATTERN)].map(({ groups }) => ({ kind: groups!['kind']!, value: groups!['value']! }));
}

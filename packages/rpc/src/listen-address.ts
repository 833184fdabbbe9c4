import { isIPv4 } from 'node:net';
import { SecateurError } from '@secateur/core';
import { parseHostPort } from './host-port.js';

export interface ListenSafety {
  /** Whether callers prove who they are with certificates over TLS. */
  readonly verifiesCallers: boolean;
  /** Whoever runs the service has said that the network keeps everybody else out. */
  readonly insecure: boolean;
}

/** Whether a host is reached from this machine only. Names other than localhost count as reached from elsewhere. */
export function isLoopback(host: string): boolean {
  const name = host.replace(/^\[|\]$/g, '').toLowerCase();
  return name === 'localhost' || name === '::1' || (isIPv4(name) && name.startsWith('127.'));
}

/** INVALID_REQUEST for an address that others could reach while nothing tells them apart. */
export function checkListenAddress(address: string, { verifiesCallers, insecure }: ListenSafety): void {
  if (verifiesCallers || insecure || isLoopback(parseHostPort(address).host)) return;
  const description =
    'whoever reaches it could use this service; give --tls-cert, --tls-key and --tls-ca, or listen at 127.0.0.1, ' +
    'or say --insecure where the network keeps everybody else out';
  throw new SecateurError('INVALID_REQUEST', `Will not listen at ${address}: ${description}.`, {
    violations: [{ field: '--listen', description }],
  });
}

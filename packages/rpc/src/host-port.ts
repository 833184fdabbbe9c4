import { SecateurError } from '@secateur/core';

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** Splits `HOST:PORT`; IPv6 addresses are in brackets. */
export function parseHostPort(address: string): HostPort {
  const match = /^(?<host>\[[^\]]+\]|[^:[\]/]+):(?<port>\d{1,5})$/.exec(address);
  const port = Number(match?.groups?.['port']);
  const host = match?.groups?.['host'];
  if (host === undefined || port > 65_535) {
    throw new SecateurError('INVALID_REQUEST', `Address ${JSON.stringify(address)} is not HOST:PORT; write for example 127.0.0.1:7400.`);
  }
  return { host, port };
}

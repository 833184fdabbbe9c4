/** Where kernel nodes are told from: one address, the addresses of a name, or the endpoints of a Kubernetes service. */
export type NodeSource =
  | { readonly kind: 'address'; readonly address: string }
  | { readonly kind: 'dns'; readonly host: string; readonly port: number }
  | { readonly kind: 'endpointslices'; readonly namespace: string; readonly service: string; readonly port: number };

/** Tells which kernel nodes there are. */
export interface NodeDiscovery {
  /** For logs. */
  readonly name: string;
  /** Reports the addresses (HOST:PORT) of all nodes once they are known, and again whenever they have changed, until the signal aborts. */
  start(report: (addresses: readonly string[]) => void, signal: AbortSignal): void;
}

/** An address that is given. */
export class StaticDiscovery implements NodeDiscovery {
  readonly name: string;

  constructor(private readonly address: string) {
    this.name = address;
  }

  start(report: (addresses: readonly string[]) => void): void {
    report([this.address]);
  }
}

/** HOST:PORT of an IP address or a name. */
export function formatAddress(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

import { SecateurError } from '@secateur/core';
import { fetchResource, type Channel, type ResourceDescriptor } from '@secateur/rpc';
import { Attribute, SpanName, withSpan } from '@secateur/telemetry';
import { FETCH_OPTIONS, type ConnectToSource } from './fetch-options.js';

/** Connections may be cut; a peer that has ended does not come back with what it served. */
const PEER_OPTIONS = { ...FETCH_OPTIONS, reconnectTimeoutMs: 2_000 };

/** Pulls what other nodes serve to a session. */
export class PeerReader {
  private readonly peers = new Map<string, Channel>();

  constructor(private readonly connectToSource: ConnectToSource) {}

  connect(endpoint: string): Channel {
    let peer = this.peers.get(endpoint);
    if (peer === undefined) {
      peer = this.connectToSource(endpoint);
      this.peers.set(endpoint, peer);
    }
    return peer;
  }

  /** Throws an error that names the node as `peer` in its metadata: whoever gave out the work must know which of the two nodes failed. */
  async read(endpoint: string, descriptor: ResourceDescriptor, what: string, signal: AbortSignal): Promise<Buffer> {
    const channel = this.connect(endpoint);
    try {
      return await withSpan(SpanName.FETCH, { attributes: { [Attribute.BYTES]: descriptor.bytes } }, () =>
        fetchResource(channel, descriptor, { ...PEER_OPTIONS, signal }),
      );
    } catch (error) {
      if (!(error instanceof SecateurError)) throw error;
      const metadata = { ...error.metadata, peer: endpoint };
      throw new SecateurError(error.reason, `Node ${endpoint}, asked for ${what}: ${error.message}`, { cause: error, metadata });
    }
  }

  close(): void {
    for (const channel of this.peers.values()) channel.close();
    this.peers.clear();
  }
}

import { SecateurError } from '@secateur/core';
import type { ByteSource } from './serve-fetch.js';

/** What a TensorService serves, by name. What jobs publish they withdraw when they are done. */
export class Resources {
  private readonly sources = new Map<string, ByteSource>();

  publish(resource: string, source: ByteSource): void {
    this.sources.set(resource, source);
  }

  publishBytes(resource: string, bytes: Uint8Array): void {
    this.publish(resource, {
      bytes: bytes.byteLength,
      read: (offset, length) => Promise.resolve(bytes.subarray(offset, offset + length)),
    });
  }

  /** Withdraws a resource, or all whose names begin with a prefix that ends in `/`. */
  withdraw(name: string): void {
    this.sources.delete(name);
    if (!name.endsWith('/')) return;
    for (const resource of this.sources.keys()) {
      if (resource.startsWith(name)) this.sources.delete(resource);
    }
  }

  find(resource: string): Promise<ByteSource> {
    const source = this.sources.get(resource);
    return source === undefined
      ? Promise.reject(new SecateurError('NOT_FOUND', `No resource ${resource} is served here.`))
      : Promise.resolve(source);
  }
}

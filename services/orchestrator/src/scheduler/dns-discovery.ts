import { NODATA, NOTFOUND } from 'node:dns';
import { Resolver } from 'node:dns/promises';
import type { Logger } from 'pino';
import { formatAddress, type NodeDiscovery } from './node-discovery.js';

const RESOLVE_EVERY_MS = 3_000;
const QUERY_TIMEOUT_MS = 2_000;

/**
 * The nodes behind a name, one per A or AAAA record, as a headless Kubernetes service has them. The name is asked for as it is, without
 * search domains. While no server answers, what was known counts.
 */
export class DnsDiscovery implements NodeDiscovery {
  readonly name: string;

  constructor(
    private readonly source: { readonly host: string; readonly port: number },
    private readonly logger: Logger,
    private readonly resolver: Resolver = new Resolver({ timeout: QUERY_TIMEOUT_MS, tries: 2 }),
    private readonly resolveEveryMs = RESOLVE_EVERY_MS,
  ) {
    this.name = `dns:${source.host}:${source.port}`;
  }

  start(report: (addresses: readonly string[]) => void, signal: AbortSignal): void {
    let timer: NodeJS.Timeout | undefined;
    let known: string | undefined;
    const resolve = async (): Promise<void> => {
      try {
        const addresses = await this.resolve();
        const found = addresses.join();
        if (found !== known && !signal.aborted) report(addresses);
        known = found;
      } catch (error) {
        this.logger.warn({ discovery: this.name, err: error }, 'the name of the kernel nodes cannot be resolved');
      }
      if (!signal.aborted) timer = setTimeout(() => void resolve(), this.resolveEveryMs).unref();
    };
    signal.addEventListener(
      'abort',
      () => {
        clearTimeout(timer);
        this.resolver.cancel();
      },
      { once: true },
    );
    void resolve();
  }

  private async resolve(): Promise<string[]> {
    const answers = await Promise.all([
      noneWhenAbsent(this.resolver.resolve4(this.source.host)),
      noneWhenAbsent(this.resolver.resolve6(this.source.host)),
    ]);
    return answers
      .flat()
      .map((address) => formatAddress(address, this.source.port))
      .sort();
  }
}

/** A name without records of a type has no nodes of it, which is an answer; everything else says nothing about nodes. */
async function noneWhenAbsent(query: Promise<string[]>): Promise<string[]> {
  try {
    return await query;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === NOTFOUND || code === NODATA) return [];
    throw error;
  }
}

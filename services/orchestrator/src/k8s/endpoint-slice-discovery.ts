import type { V1Endpoint, V1EndpointSlice } from '@kubernetes/client-node';
import type { Logger } from 'pino';
import { formatAddress, type NodeDiscovery } from '../scheduler/node-discovery.js';
import { followObjects } from './follow-objects.js';

/** The label that says of which service a slice is. */
const SERVICE_LABEL = 'kubernetes.io/service-name';

export interface EndpointSliceSource {
  readonly namespace: string;
  readonly service: string;
  readonly port: number;
}

/**
 * The nodes behind a Kubernetes service, by a watch of its EndpointSlices. A pod that has a host name in the service is known by that name,
 * which stays when the pod is made anew and which its certificate can have; any other by its address. Pods that end are left out at once.
 */
export class EndpointSliceDiscovery implements NodeDiscovery {
  readonly name: string;

  constructor(
    private readonly source: EndpointSliceSource,
    private readonly logger: Logger,
  ) {
    this.name = `endpointslices:${source.namespace}/${source.service}:${source.port}`;
  }

  start(report: (addresses: readonly string[]) => void, signal: AbortSignal): void {
    let known: string | undefined;
    const onObjects = (slices: readonly V1EndpointSlice[]): void => {
      const addresses = addressesOf(slices, this.source);
      const found = addresses.join();
      if (found !== known) report(addresses);
      known = found;
    };
    const { namespace, service } = this.source;
    const labelSelector = `${SERVICE_LABEL}=${service}`;
    void followObjects<V1EndpointSlice>(
      {
        path: `/apis/discovery.k8s.io/v1/namespaces/${encodeURIComponent(namespace)}/endpointslices`,
        labelSelector,
        list: async (config) => {
          const { DiscoveryV1Api } = await import('@kubernetes/client-node');
          return config.makeApiClient(DiscoveryV1Api).listNamespacedEndpointSlice({ namespace, labelSelector });
        },
        onObjects,
        onProblem: (error) => this.logger.warn({ discovery: this.name, err: error }, 'the EndpointSlices cannot be watched'),
      },
      signal,
    );
  }
}

/** As the API server writes it: the client's type does not know that a slice without endpoints has null. */
interface Slice {
  readonly endpoints: readonly V1Endpoint[] | null;
}

function addressesOf(slices: readonly Slice[], { namespace, service, port }: EndpointSliceSource): string[] {
  const hosts = slices.flatMap(({ endpoints }) =>
    (endpoints ?? []).flatMap(({ addresses, conditions, hostname }) => {
      if (conditions?.terminating === true) return [];
      return hostname === undefined ? addresses : [`${hostname}.${service}.${namespace}.svc`];
    }),
  );
  return [...new Set(hosts.map((host) => formatAddress(host, port)))].sort();
}

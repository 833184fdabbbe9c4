import type { Attributes } from '@opentelemetry/api';

/** Which process spans come from. */
export interface ServiceIdentity {
  readonly serviceName: string;
  readonly serviceVersion: string;
  /** Tells the processes of one service apart. */
  readonly instanceId: string;
}

/** As the conventions of OpenTelemetry name them. */
export function resourceAttributes({ serviceName, serviceVersion, instanceId }: ServiceIdentity): Attributes {
  return {
    'service.name': serviceName,
    'service.version': serviceVersion,
    'service.instance.id': instanceId,
    'process.pid': process.pid,
  };
}

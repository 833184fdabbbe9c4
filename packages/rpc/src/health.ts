import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import type { Channel } from './channel.js';
import type { CallOptions, MessageType, ServiceDefinition } from './definition.js';

interface HealthCheckRequest {
  service: string;
}

interface HealthCheckResponse {
  status: number;
}

const SERVING = 1;

/** Clients need these two messages only, not a loader of .proto files. */
const HealthCheckRequest: MessageType<HealthCheckRequest> = {
  encode: ({ service }) => new BinaryWriter().uint32(10).string(service),
  decode: (bytes) => ({ service: readField(bytes, 1, (reader) => reader.string()) ?? '' }),
  fromPartial: (partial) => partial as HealthCheckRequest,
};

const HealthCheckResponse: MessageType<HealthCheckResponse> = {
  encode: ({ status }) => new BinaryWriter().uint32(8).int32(status),
  decode: (bytes) => ({ status: readField(bytes, 1, (reader) => reader.int32()) ?? 0 }),
  fromPartial: (partial) => partial as HealthCheckResponse,
};

/** https://github.com/grpc/grpc/blob/master/doc/health-checking.md */
const HealthDefinition = {
  name: 'Health',
  fullName: 'grpc.health.v1.Health',
  methods: {
    check: {
      name: 'Check',
      requestType: HealthCheckRequest,
      requestStream: false,
      responseType: HealthCheckResponse,
      responseStream: false,
    },
    watch: {
      name: 'Watch',
      requestType: HealthCheckRequest,
      requestStream: false,
      responseType: HealthCheckResponse,
      responseStream: true,
    },
  },
} as const satisfies ServiceDefinition;

/** Whether the server welcomes new work for a service ('' = as a whole). Throws when it cannot be asked or does not know the service. */
export async function checkHealth(channel: Channel, service: string, timeoutMs: number, signal?: AbortSignal): Promise<boolean> {
  const options = { timeoutMs, ...(signal === undefined ? {} : { signal }) };
  const { status } = await channel.client(HealthDefinition).check({ service }, options);
  return status === SERVING;
}

/** Whether the service is healthy, now and whenever that changes. Ends with UNAVAILABLE when the server goes away. */
export async function* watchHealth(channel: Channel, service: string, options: CallOptions): AsyncGenerator<boolean, void, undefined> {
  for await (const { status } of channel.client(HealthDefinition).watch({ service }, options)) yield status === SERVING;
}

function readField<Value>(bytes: Uint8Array, field: number, read: (reader: BinaryReader) => Value): Value | undefined {
  const reader = new BinaryReader(bytes);
  let value: Value | undefined;
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    if (number === field) value = read(reader);
    else reader.skip(wireType);
  }
  return value;
}

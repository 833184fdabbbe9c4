import { SecateurError } from '@secateur/core';
import { EncodedMessage } from './encoded-message.js';
import type { MethodDefinition, MessageType, ServiceDefinition } from './definition.js';

/** How grpc-js sends and receives one method. Requests and answers to be sent may be partial messages or encoded already. */
export interface MethodCodec {
  /** Such as `secateur.v1.KernelService/Embed`. */
  readonly fullName: string;
  /** `/` and the full name. */
  readonly path: string;
  readonly requestStream: false;
  readonly responseStream: boolean;
  readonly requestSerialize: (message: unknown) => Buffer;
  readonly requestDeserialize: (bytes: Buffer) => unknown;
  readonly responseSerialize: (message: unknown) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => unknown;
}

export function createMethodCodec(service: ServiceDefinition, method: MethodDefinition): MethodCodec {
  const fullName = `${service.fullName}/${method.name}`;
  return {
    fullName,
    path: `/${fullName}`,
    requestStream: false,
    responseStream: method.responseStream,
    requestSerialize: createSerializer(method.requestType),
    requestDeserialize: (bytes) => decodeRequest(method.requestType, bytes),
    responseSerialize: createSerializer(method.responseType),
    responseDeserialize: (bytes) => method.responseType.decode(bytes),
  };
}

/** A request whose bytes are no message of its method. It is not thrown by the codec, since gRPC would tell the caller of a defect. */
class UndecodableRequest {
  constructor(readonly error: SecateurError) {}
}

/** The request that a codec has decoded; throws INVALID_REQUEST if it could not. */
export function requireDecoded(request: unknown): unknown {
  if (request instanceof UndecodableRequest) throw request.error;
  return request;
}

/** Whether a call belongs to the infrastructure (health, reflection): such calls need no deadline and are not traced. */
export function isInfrastructure(path: string): boolean {
  return path.startsWith('/grpc.');
}

function decodeRequest(type: MessageType, bytes: Buffer): unknown {
  try {
    return type.decode(bytes);
  } catch (cause) {
    const problem = cause instanceof Error ? cause.message : String(cause);
    return new UndecodableRequest(new SecateurError('INVALID_REQUEST', `The request is no message of this method: ${problem}.`, { cause }));
  }
}

function createSerializer(type: MessageType): (message: unknown) => Buffer {
  return (message) => {
    if (message instanceof EncodedMessage) return message.bytes;
    const bytes = type.encode(type.fromPartial(message)).finish();
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
}

import type { ServerResponse } from 'node:http';
import { fromBinary, toJson } from '@bufbuild/protobuf';
import { SecateurError, type StatusName } from '@secateur/core';
import { Status } from '@secateur/proto/google/rpc/status';
import { toStatusProto } from '@secateur/rpc';
import { detailTypes, messageType } from './descriptors.js';

/** As google.rpc.Code maps its codes. */
const HTTP_CODES: Readonly<Record<StatusName, number>> = {
  CANCELLED: 499,
  UNKNOWN: 500,
  INVALID_ARGUMENT: 400,
  DEADLINE_EXCEEDED: 504,
  NOT_FOUND: 404,
  ALREADY_EXISTS: 409,
  PERMISSION_DENIED: 403,
  UNAUTHENTICATED: 401,
  RESOURCE_EXHAUSTED: 429,
  FAILED_PRECONDITION: 400,
  ABORTED: 409,
  INTERNAL: 500,
  UNAVAILABLE: 503,
  DATA_LOSS: 500,
};

/** An error that HTTP has a code of its own for. */
export class HttpError extends SecateurError {
  constructor(
    readonly httpCode: number,
    ...args: ConstructorParameters<typeof SecateurError>
  ) {
    super(...args);
  }
}

/** The google.rpc.Status of an error in JSON. */
export function errorToJson(error: SecateurError): string {
  const schema = messageType('google.rpc.Status');
  return JSON.stringify(toJson(schema, fromBinary(schema, Status.encode(toStatusProto(error)).finish()), { registry: detailTypes() }));
}

export function sendError(response: ServerResponse, error: SecateurError): void {
  const code = error instanceof HttpError ? error.httpCode : HTTP_CODES[error.status];
  if (code === 401) response.setHeader('WWW-Authenticate', 'Bearer');
  send(response, code, 'application/json', errorToJson(error));
}

export function send(response: ServerResponse, code: number, type: string, text: string): void {
  response.writeHead(code, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(text), 'X-Content-Type-Options': 'nosniff' });
  response.end(text);
}

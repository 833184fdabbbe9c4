import { ERROR_CATALOGUE, SecateurError, type ErrorReason, type FieldViolation } from '@secateur/core';
import type { Any } from '@secateur/proto/google/protobuf/any';
import { BadRequest, ErrorInfo } from '@secateur/proto/google/rpc/error_details';
import { Status } from '@secateur/proto/google/rpc/status';
import { Metadata, status as StatusCode, type StatusObject } from '@grpc/grpc-js';

const DOMAIN = 'secateur.dev';
const TYPE_URL_PREFIX = 'type.googleapis.com/';
const DETAILS_KEY = 'grpc-status-details-bin';
/** Trailers of a call must stay below the header limits of HTTP/2 peers (16 KiB is the common one), so long lists and texts are cut. */
const MAXIMUM_VIOLATIONS = 16;
const MAXIMUM_MESSAGE_LENGTH = 1_000;
const MAXIMUM_DETAIL_LENGTH = 200;

/** What an error of a peer without our own details becomes. */
const REASON_OF_CODE: Readonly<Partial<Record<number, ErrorReason>>> = {
  [StatusCode.CANCELLED]: 'CANCELLED',
  [StatusCode.INVALID_ARGUMENT]: 'INVALID_REQUEST',
  [StatusCode.DEADLINE_EXCEEDED]: 'DEADLINE_EXCEEDED',
  [StatusCode.NOT_FOUND]: 'NOT_FOUND',
  [StatusCode.ALREADY_EXISTS]: 'ALREADY_EXISTS',
  [StatusCode.PERMISSION_DENIED]: 'PERMISSION_DENIED',
  [StatusCode.RESOURCE_EXHAUSTED]: 'RESOURCE_EXHAUSTED',
  [StatusCode.FAILED_PRECONDITION]: 'FAILED_PRECONDITION',
  [StatusCode.ABORTED]: 'UNAVAILABLE',
  [StatusCode.OUT_OF_RANGE]: 'INVALID_REQUEST',
  [StatusCode.UNIMPLEMENTED]: 'FAILED_PRECONDITION',
  [StatusCode.UNAVAILABLE]: 'UNAVAILABLE',
  [StatusCode.DATA_LOSS]: 'CORRUPT_DATA',
  [StatusCode.UNAUTHENTICATED]: 'UNAUTHENTICATED',
};

const NO_SUCH_METHOD = 'the server there has no such method; it is one of another kind (jobs are for `secateur serve`) or an older one.';

/** The google.rpc.Status of an error: its reason and metadata as ErrorInfo, its violations as BadRequest. */
export function toStatusProto(error: SecateurError): Status {
  const details = [
    pack('google.rpc.ErrorInfo', ErrorInfo.encode({ reason: error.reason, domain: DOMAIN, metadata: { ...error.metadata } })),
  ];
  if (error.violations.length > 0) {
    const fieldViolations = error.violations.slice(0, MAXIMUM_VIOLATIONS).map(({ field, description }) => ({
      field: clip(field, MAXIMUM_DETAIL_LENGTH),
      description: clip(description, MAXIMUM_DETAIL_LENGTH),
    }));
    details.push(pack('google.rpc.BadRequest', BadRequest.encode({ fieldViolations })));
  }
  return { code: StatusCode[error.status], message: clip(error.message, MAXIMUM_MESSAGE_LENGTH), details };
}

/** The error a google.rpc.Status stands for. */
export function fromStatusProto(status: Status): SecateurError {
  let reason = reasonOfCode(status.code);
  let metadata: Readonly<Record<string, string>> = {};
  let violations: readonly FieldViolation[] = [];
  for (const detail of status.details) {
    if (detail.typeUrl === `${TYPE_URL_PREFIX}google.rpc.ErrorInfo`) {
      const info = ErrorInfo.decode(detail.value);
      metadata = info.metadata;
      if (info.domain === DOMAIN && isErrorReason(info.reason)) reason = info.reason;
    } else if (detail.typeUrl === `${TYPE_URL_PREFIX}google.rpc.BadRequest`) {
      violations = BadRequest.decode(detail.value).fieldViolations;
    }
  }
  return new SecateurError(reason, status.message, { metadata, violations });
}

/** How a handler's error ends its call. */
export function toStatusObject(error: SecateurError): StatusObject {
  const status = toStatusProto(error);
  const metadata = new Metadata();
  metadata.set(DETAILS_KEY, Buffer.from(Status.encode(status).finish()));
  return { code: StatusCode[error.status], details: status.message, metadata };
}

/** What the end of a call means to the client. `callName` is put before texts that do not say what they are about. */
export function fromStatusObject(status: StatusObject, callName: string): SecateurError {
  const [encoded] = status.metadata.get(DETAILS_KEY);
  if (Buffer.isBuffer(encoded)) {
    try {
      return fromStatusProto(Status.decode(encoded));
    } catch {
      // Details of an unknown make; the code and the text remain.
    }
  }
  if (status.code === StatusCode.UNIMPLEMENTED) {
    return new SecateurError(reasonOfBareStatus(status), `${callName}: ${NO_SUCH_METHOD}`);
  }
  return new SecateurError(reasonOfBareStatus(status), `${callName}: ${withoutEmptyNote(status.details)}`, { cause: status });
}

/** grpc-js ends what it says of connections with a note that has nothing to say. */
function withoutEmptyNote(details: string): string {
  return details.replace(/\s*Resolution note:\s*$/, '');
}

function reasonOfBareStatus({ code, details }: StatusObject): ErrorReason {
  // A connection that breaks under a call ends it with RST_STREAM, which grpc-js shows under several codes. CANCELLED that the
  // caller did not ask for is a server that was stopped.
  if (code === StatusCode.CANCELLED || (code === StatusCode.INTERNAL && details.includes('RST_STREAM'))) return 'UNAVAILABLE';
  return reasonOfCode(code);
}

function reasonOfCode(code: number): ErrorReason {
  return REASON_OF_CODE[code] ?? 'INTERNAL';
}

function pack(typeName: string, message: { finish(): Uint8Array }): Any {
  return { typeUrl: `${TYPE_URL_PREFIX}${typeName}`, value: message.finish() };
}

function isErrorReason(reason: string): reason is ErrorReason {
  return Object.hasOwn(ERROR_CATALOGUE, reason);
}

/** Cuts a text and repairs lone surrogates, which cannot be sent. */
function clip(text: string, length: number): string {
  return Buffer.from(text.length <= length ? text : `${text.slice(0, length - 1)}…`).toString();
}

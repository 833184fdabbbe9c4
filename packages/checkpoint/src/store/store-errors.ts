import { SecateurError, type ErrorReason } from '@secateur/core';

interface Meaning {
  readonly reason: ErrorReason;
  readonly text: string;
}

/** Stores compare a body with the checksums of the request, and with its signature. */
const CHANGED: Meaning = { reason: 'UNAVAILABLE', text: 'its bytes changed on the way to the store' };

/** What the store's answers mean to the caller, by the name of the error. */
const MEANINGS: Readonly<Record<string, Meaning>> = {
  NoSuchKey: { reason: 'NOT_FOUND', text: 'it does not exist' },
  NotFound: { reason: 'NOT_FOUND', text: 'it does not exist' },
  NoSuchBucket: { reason: 'NOT_FOUND', text: 'the bucket does not exist' },
  AccessDenied: { reason: 'FAILED_PRECONDITION', text: 'permission is denied by the store; check the credentials and what they may do' },
  InvalidAccessKeyId: {
    reason: 'FAILED_PRECONDITION',
    text: 'the store does not know the access key; check AWS_ACCESS_KEY_ID or the profile',
  },
  SignatureDoesNotMatch: {
    reason: 'FAILED_PRECONDITION',
    text: 'the secret is not that of the access key; check AWS_SECRET_ACCESS_KEY or the profile',
  },
  ExpiredToken: { reason: 'FAILED_PRECONDITION', text: 'the session token has expired; get new credentials' },
  RequestTimeTooSkewed: { reason: 'FAILED_PRECONDITION', text: 'the clock of this machine differs from that of the store' },
  CredentialsProviderError: {
    reason: 'FAILED_PRECONDITION',
    text: 'no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE',
  },
  PermanentRedirect: { reason: 'FAILED_PRECONDITION', text: 'the bucket is in another region; set AWS_REGION' },
  PreconditionFailed: { reason: 'FAILED_PRECONDITION', text: 'it has changed while it was in use; run the job again with files that stay' },
  MissingRegion: {
    reason: 'FAILED_PRECONDITION',
    text: 'no region is set; set AWS_REGION, or AWS_ENDPOINT_URL_S3 for a store of your own',
  },
  ConditionalRequestConflict: { reason: 'UNAVAILABLE', text: 'the store cannot decide which of two writers was first' },
  NotImplemented: {
    reason: 'FAILED_PRECONDITION',
    text: 'the store does not know all of the request; for one that knows no newer checksums, set AWS_REQUEST_CHECKSUM_CALCULATION to when_required',
  },
  UntrustedCertificate: {
    reason: 'FAILED_PRECONDITION',
    text: 'its certificate is not trusted; name the file of its authority in NODE_EXTRA_CA_CERTS',
  },
  NoSuchUpload: { reason: 'UNAVAILABLE', text: 'the store has given up what was sent of it' },
  BadDigest: CHANGED,
  XAmzContentSHA256Mismatch: CHANGED,
  SlowDown: { reason: 'UNAVAILABLE', text: 'the store takes no more requests for now' },
};

const REFUSED: Meaning = { reason: 'FAILED_PRECONDITION', text: 'the store refuses the request' };
const FAILED: Meaning = { reason: 'UNAVAILABLE', text: 'the store cannot be reached or failed' };
/** Those that have no code. */
const CONNECTION_ERRORS: ReadonlySet<string> = new Set(['TimeoutError', 'NetworkingError']);

/** Those of a connection to a store of which no authority is known that vouches for it. */
const UNTRUSTED_CODES: ReadonlySet<string> = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);

/** The same by HTTP status, for answers without a body and names that only some stores use. */
const STATUS_MEANINGS: Readonly<Record<number, string>> = {
  403: 'AccessDenied',
  404: 'NotFound',
  412: 'PreconditionFailed',
  301: 'PermanentRedirect',
};

/** The name of a store's error; undefined for others. */
export function storeErrorName(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if (error.name in MEANINGS) return error.name;
  if (error.message === 'Region is missing') return 'MissingRegion';
  if (UNTRUSTED_CODES.has(codeOf(error) ?? '')) return 'UntrustedCertificate';
  return STATUS_MEANINGS[statusOf(error) ?? 0] ?? error.name;
}

/** Whether the same request may succeed at once: the connection broke, or the store had a moment of weakness. */
export function isPassing(error: unknown): boolean {
  if (error instanceof SecateurError) return false;
  const status = statusOf(error);
  if (status !== undefined && status !== 200 && status !== 206) return status >= 500 || status === 429;
  return !((storeErrorName(error) ?? '') in MEANINGS);
}

/**
 * An error of the store as a SecateurError that names the object. What the SDK tells is left behind: it holds headers and signatures of requests.
 * `action`: what was tried, such as `read`.
 */
export function toStoreError(action: string, url: string, error: unknown): SecateurError {
  if (error instanceof SecateurError) return error;
  const name = storeErrorName(error) ?? 'error';
  const status = statusOf(error);
  if (name === 'AbortError') return new SecateurError('CANCELLED', 'The work was cancelled.');
  if (error instanceof Error && error.message.startsWith('Checksum mismatch')) {
    return new SecateurError('CORRUPT_DATA', `Cannot ${action} ${url}: the bytes do not match the checksum that the store has of them.`);
  }
  // Neither an answer of the store nor a broken connection: a defect.
  if (!(name in MEANINGS) && status === undefined && codeOf(error) === undefined && !CONNECTION_ERRORS.has(name)) throw error;
  const isRefusal = status !== undefined && status >= 400 && status < 500 && status !== 429;
  const meaning = MEANINGS[name] ?? (isRefusal ? REFUSED : FAILED);
  const told = [name, codeOf(error), status].filter((part) => part !== undefined && part !== 'Error');
  return new SecateurError(meaning.reason, `Cannot ${action} ${url}: ${meaning.text} (${[...new Set(told)].join(', ')}).`);
}

/** Runs an operation of the store; its errors name the object. */
export async function withStoreErrors<T>(action: string, url: string, operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    throw toStoreError(action, url, error);
  }
}

/** The HTTP status that the store answered with. */
export function statusOf(error: unknown): number | undefined {
  if (typeof error !== 'object' || error === null || !('$metadata' in error)) return undefined;
  const { $metadata: metadata } = error;
  if (typeof metadata !== 'object' || metadata === null || !('httpStatusCode' in metadata)) return undefined;
  return typeof metadata.httpStatusCode === 'number' ? metadata.httpStatusCode : undefined;
}

/** Such as ECONNREFUSED. */
function codeOf(error: unknown): string | undefined {
  return typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/**
 * The one catalogue of errors that cross a boundary: a stable reason, the gRPC status it becomes, and whether trying again can help.
 * Everything that is not a SecateurError is a defect and reaches callers as INTERNAL without its text.
 */

/** Names of the gRPC status codes in use, as in google.rpc.Code. */
export type StatusName =
  | 'ABORTED'
  | 'ALREADY_EXISTS'
  | 'CANCELLED'
  | 'DATA_LOSS'
  | 'DEADLINE_EXCEEDED'
  | 'FAILED_PRECONDITION'
  | 'INTERNAL'
  | 'INVALID_ARGUMENT'
  | 'NOT_FOUND'
  | 'PERMISSION_DENIED'
  | 'RESOURCE_EXHAUSTED'
  | 'UNAUTHENTICATED'
  | 'UNAVAILABLE'
  | 'UNKNOWN';

interface CatalogueEntry {
  readonly status: StatusName;
  /** Whether the same call may succeed later. */
  readonly retryable: boolean;
  /** What it means to a caller: one Markdown sentence. */
  readonly description: string;
}

export const ERROR_CATALOGUE = {
  INVALID_REQUEST: {
    status: 'INVALID_ARGUMENT',
    retryable: false,
    description: 'A field of a request or an option is wrong.',
  },
  INVALID_CHECKPOINT: {
    status: 'INVALID_ARGUMENT',
    retryable: false,
    description: 'A file of a checkpoint is broken or contradicts its config.',
  },
  UNSUPPORTED_MODEL: {
    status: 'INVALID_ARGUMENT',
    retryable: false,
    description: 'config.json asks for something this version does not compute.',
  },
  INVALID_DATA: {
    status: 'INVALID_ARGUMENT',
    retryable: false,
    description: 'Calibration data, evaluation data or masks are broken, too little or of another model.',
  },
  PATH_NOT_ALLOWED: {
    status: 'INVALID_ARGUMENT',
    retryable: false,
    description: 'A path lies outside the roots the service may use.',
  },
  NOT_FOUND: {
    status: 'NOT_FOUND',
    retryable: false,
    description: 'Nothing is known under that name.',
  },
  ALREADY_EXISTS: {
    status: 'ALREADY_EXISTS',
    retryable: false,
    description: 'The name is taken by something else.',
  },
  FAILED_PRECONDITION: {
    status: 'FAILED_PRECONDITION',
    retryable: false,
    description: 'The call does not fit the present state.',
  },
  RESOURCE_EXHAUSTED: {
    status: 'RESOURCE_EXHAUSTED',
    retryable: false,
    description: 'Memory, disk or another limit is used up; metadata holds `neededBytes` and `availableBytes` where known.',
  },
  UNAVAILABLE: {
    status: 'UNAVAILABLE',
    retryable: true,
    description: 'The peer cannot be reached or is going away.',
  },
  DEADLINE_EXCEEDED: {
    status: 'DEADLINE_EXCEEDED',
    retryable: true,
    description: 'The peer did not answer in time.',
  },
  CORRUPT_DATA: {
    status: 'DATA_LOSS',
    retryable: true,
    description: 'Bytes do not match their checksum or digest.',
  },
  NON_FINITE_RESULT: {
    status: 'FAILED_PRECONDITION',
    retryable: false,
    description: 'A computation gave NaN or infinity.',
  },
  LEASE_LOST: {
    status: 'ABORTED',
    retryable: true,
    description: 'The job went to another orchestrator, which goes on with it.',
  },
  UNAUTHENTICATED: {
    status: 'UNAUTHENTICATED',
    retryable: false,
    description: 'The caller did not say who it is, or what it said is not valid.',
  },
  PERMISSION_DENIED: {
    status: 'PERMISSION_DENIED',
    retryable: false,
    description: 'The caller may not do this.',
  },
  CANCELLED: {
    status: 'CANCELLED',
    retryable: false,
    description: 'The caller stopped the work.',
  },
  INTERNAL: {
    status: 'INTERNAL',
    retryable: false,
    description: 'A defect of Secateur; the log of the service that reports it has the details.',
  },
} as const satisfies Record<string, CatalogueEntry>;

export type ErrorReason = keyof typeof ERROR_CATALOGUE;

/** One wrong field of a request. */
export interface FieldViolation {
  /** Path of the field, such as `prune.sparsity`. */
  readonly field: string;
  /** What is wrong and what would be right. */
  readonly description: string;
}

export interface SecateurErrorOptions {
  readonly cause?: unknown;
  readonly violations?: readonly FieldViolation[];
  /** Values programs can use, such as `neededBytes`. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** Names in a message may come from a file or request, and are as long as whoever wrote those likes. */
const MAXIMUM_MESSAGE_LENGTH = 4_000;
const KEPT_END = 1_000;

/** Leaves out the middle of a long text: what it is about stands at its begin, what to do at its end. */
function shorten(message: string): string {
  if (message.length <= MAXIMUM_MESSAGE_LENGTH) return message;
  return `${message.slice(0, MAXIMUM_MESSAGE_LENGTH - KEPT_END - 1)}…${message.slice(-KEPT_END)}`;
}

/** An error that callers can understand and act on. */
export class SecateurError extends Error {
  override readonly name = 'SecateurError';
  readonly reason: ErrorReason;
  readonly violations: readonly FieldViolation[];
  readonly metadata: Readonly<Record<string, string>>;

  constructor(reason: ErrorReason, message: string, options: SecateurErrorOptions = {}) {
    super(shorten(message), options.cause === undefined ? undefined : { cause: options.cause });
    this.reason = reason;
    this.violations = options.violations ?? [];
    this.metadata = options.metadata ?? {};
  }

  get status(): StatusName {
    return ERROR_CATALOGUE[this.reason].status;
  }

  get retryable(): boolean {
    return ERROR_CATALOGUE[this.reason].retryable;
  }
}

/** Throws the error of a stopped computation if the signal is aborted. */
export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new SecateurError('CANCELLED', 'The work was cancelled.', { cause: signal.reason });
}

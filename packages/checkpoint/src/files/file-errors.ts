import { SecateurError, type ErrorReason } from '@secateur/core';

/** What a failed file operation means to the caller, by errno. */
const REASONS: Readonly<Record<string, ErrorReason>> = {
  ENOENT: 'NOT_FOUND',
  EEXIST: 'ALREADY_EXISTS',
  ENOSPC: 'RESOURCE_EXHAUSTED',
  EDQUOT: 'RESOURCE_EXHAUSTED',
  EFBIG: 'RESOURCE_EXHAUSTED',
  EMFILE: 'RESOURCE_EXHAUSTED',
  ENFILE: 'RESOURCE_EXHAUSTED',
};

const EXPLANATIONS: Readonly<Record<string, string>> = {
  ENOENT: 'it does not exist',
  EEXIST: 'it exists already',
  ENOSPC: 'no space is left on the device',
  EDQUOT: 'the disk quota is used up',
  EFBIG: 'the file would be larger than the limit',
  EMFILE: 'too many files are open',
  ENFILE: 'too many files are open',
  EROFS: 'the file system is read-only',
  EIO: 'the device failed (input/output error)',
  EACCES: 'permission is denied',
  EPERM: 'it is not permitted',
  EISDIR: 'it is a folder',
  ENOTDIR: 'a part of the path is not a folder',
};

/** What to do about it, where that is not plain. */
const REMEDIES: Readonly<Record<string, string>> = {
  ENOSPC: 'Free some space and try again.',
  EDQUOT: 'Free some space, or have the quota raised, and try again.',
  EFBIG: 'Raise the limit of file sizes (ulimit -f), or choose a file system that takes larger ones.',
  EMFILE: 'Raise the limit of open files (ulimit -n) and try again.',
  EACCES: 'Let the user that this process runs as have access, or choose another place.',
  EROFS: 'Make it writable, or choose another folder, and try again.',
};

/** The errno of a failed file operation; undefined for other errors. */
export function errorCode(error: unknown): string | undefined {
  return typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** An error of a file operation as a SecateurError that names the path. `action`: what was tried, such as `write`. */
export function toFileError(action: string, path: string, error: unknown): SecateurError {
  if (error instanceof SecateurError) return error;
  const code = errorCode(error);
  if (code === undefined) throw error;
  const explanation = EXPLANATIONS[code] ?? 'the operation failed';
  const remedy = REMEDIES[code] === undefined ? '' : ` ${REMEDIES[code]}`;
  return new SecateurError(REASONS[code] ?? 'FAILED_PRECONDITION', `Cannot ${action} ${path}: ${explanation} (${code}).${remedy}`, {
    cause: error,
  });
}

/** Runs a file operation; its errors name the path. */
export async function withFileErrors<T>(action: string, path: string, operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    throw toFileError(action, path, error);
  }
}

import { pino, type DestinationStream, type Logger } from 'pino';
import { hideSecrets } from './hide-secrets.js';

/** Fields that hold secrets wherever they are. */
const SECRET_FIELDS = ['authorization', 'token', 'password', 'privateKey', 'secret', 'databaseUrl'];

export interface LoggerOptions {
  readonly name: string;
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  /** Fields of every line. */
  readonly base?: Readonly<Record<string, string>>;
}

/**
 * JSON lines on stderr, or elsewhere, without secrets: neither in fields of their own nor inside of texts. Not by pino's own stream, which tries again
 * for ever, at the end of the process too, when a disk is full.
 */
export function createServiceLogger({ name, level, base }: LoggerOptions, destination: DestinationStream = process.stderr): Logger {
  const paths = SECRET_FIELDS.flatMap((field) => [field, `*.${field}`, `*.*.${field}`]);
  const redact = { paths, censor: '[hidden]' };
  return pino({ name, level, redact, ...(base === undefined ? {} : { base }) }, { write: (line) => destination.write(hideSecrets(line)) });
}

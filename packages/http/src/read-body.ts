import type { IncomingMessage } from 'node:http';
import { SecateurError } from '@secateur/core';
import { HttpError } from './http-errors.js';

/** Far above any spec. */
const MAXIMUM_BODY_BYTES = 1 << 20;

/** The JSON text of a request's body, empty where it has none. */
export async function readBody(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    bytes += part.byteLength;
    if (bytes > MAXIMUM_BODY_BYTES) {
      throw new HttpError(413, 'INVALID_REQUEST', `The body is longer than ${MAXIMUM_BODY_BYTES} bytes, the most that is read.`);
    }
    parts.push(part);
  }
  if (bytes === 0) return '';
  const type = request.headers['content-type'] ?? 'absent';
  // Browsers send other types for any page without asking, this one only where they may.
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw new HttpError(415, 'INVALID_REQUEST', `The Content-Type is ${type}; send the body as application/json.`);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(parts));
  } catch (cause) {
    throw new SecateurError('INVALID_REQUEST', 'The body is not UTF-8.', { cause });
  }
}

import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { SecateurError } from '@secateur/core';
import { errorToJson } from './http-errors.js';
import type { StreamFormat } from './stream-format.js';

/** Until then an error can still become a code of HTTP. */
const HEAD_AFTER_MS = 1_000;
const KEEP_ALIVE_EVERY_MS = 15_000;

export interface StreamedMessage {
  readonly json: string;
  readonly id: string | undefined;
}

/** Writes messages to a client as fast as it reads them. */
export class StreamAnswer {
  private begun = false;
  private readonly timers: NodeJS.Timeout[];

  constructor(
    private readonly response: ServerResponse,
    private readonly format: StreamFormat,
    private readonly signal: AbortSignal,
  ) {
    this.timers = [
      setTimeout(() => this.begin(), HEAD_AFTER_MS),
      // One that waits for its reader needs no other sign.
      setInterval(() => this.begun && !response.writableNeedDrain && response.write(format.keepAlive), KEEP_ALIVE_EVERY_MS),
    ];
    response.once('close', () => this.timers.forEach((timer) => clearTimeout(timer)));
  }

  /** Writes all of them, and ends. `isResumed`: a client that saw the last one learns that it need not ask again. */
  async writeAll(messages: AsyncIterable<StreamedMessage>, isResumed: boolean): Promise<void> {
    for await (const { json, id } of messages) {
      this.begin();
      if (!this.response.write(this.format.message(json, id))) await once(this.response, 'drain', { signal: this.signal });
    }
    if (!this.begun && isResumed) {
      this.response.writeHead(204).end();
      return;
    }
    this.begin();
    this.response.end(this.format.end);
  }

  /** Ends what has begun with an error; false where nothing has, so that the error can be sent as an answer of its own. */
  fail(error: SecateurError): boolean {
    if (!this.begun) return false;
    // Who does not read will not read this either.
    if (this.response.writableNeedDrain) this.response.destroy();
    else this.response.end(this.format.failure(errorToJson(error)));
    return true;
  }

  private begin(): void {
    if (this.begun || this.response.writableEnded || this.response.destroyed) return;
    this.begun = true;
    // Its end is the end of the connection, so that a server that shuts down need not wait for another request.
    this.response.shouldKeepAlive = false;
    this.response.writeHead(200, { 'Content-Type': this.format.contentType, 'Cache-Control': 'no-store', 'X-Accel-Buffering': 'no' });
    this.response.flushHeaders();
  }
}

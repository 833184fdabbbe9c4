/** How the messages of a stream are written to HTTP. */
export interface StreamFormat {
  readonly contentType: string;
  /** `id`: what a client gives to go on after this message. */
  message(json: string, id: string | undefined): string;
  failure(statusJson: string): string;
  /** Tells a client that no more will come, so that it need not connect again. */
  readonly end: string;
  /** Means nothing to the reader; shows that both sides are there. */
  readonly keepAlive: string;
}

/** https://html.spec.whatwg.org/multipage/server-sent-events.html */
const EVENT_STREAM: StreamFormat = {
  contentType: 'text/event-stream',
  message: (json, id) => `${id === undefined ? '' : `id: ${id}\n`}data: ${json}\n\n`,
  // `error` is what browsers call a lost connection.
  failure: (statusJson) => `event: failure\ndata: ${statusJson}\n\n`,
  end: 'event: end\ndata: {}\n\n',
  keepAlive: ':\n\n',
};

/** One message a line. A failure is the last line. */
const JSON_LINES: StreamFormat = {
  contentType: 'application/x-ndjson',
  message: (json) => `${json}\n`,
  failure: (statusJson) => `{"error":${statusJson}}\n`,
  end: '',
  keepAlive: '',
};

export function chooseFormat(accept: string | undefined): StreamFormat {
  return accept?.includes(JSON_LINES.contentType) === true ? JSON_LINES : EVENT_STREAM;
}

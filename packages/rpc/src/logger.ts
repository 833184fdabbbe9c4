/** What the server writes its log to; a pino logger is one. */
export interface RpcLogger {
  error(fields: object, message: string): void;
}

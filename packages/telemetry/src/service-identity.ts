/** Which process spans come from. */
export interface ServiceIdentity {
  readonly serviceName: string;
  readonly serviceVersion: string;
  /** Tells the processes of one service apart. */
  readonly instanceId: string;
}

/** A message that is in its wire form already; it is sent as it is. */
export class EncodedMessage {
  constructor(readonly bytes: Buffer) {}
}

import { CHECKSUM_BYTES } from '@secateur/core';
import { EncodedMessage } from './encoded-message.js';

/** Tags of FetchResponse (`proto/secateur/v1/tensor_service.proto`): the number of the field and its wire type. */
const OFFSET_TAG = (1 << 3) | 0;
const DATA_TAG = (2 << 3) | 2;
const CHECKSUM_TAG = (3 << 3) | 2;

/** Two tags, an offset of at most 2^53 and a length of at most 2^31. */
const HEADER_ROOM = 1 + 8 + 1 + 5;
const TRAILER_BYTES = 2 + CHECKSUM_BYTES;

/** Memory for one FetchResponse with room around its data for the other fields: what is read into `data` is not copied to be sent. */
export class FetchChunk {
  private readonly memory: Buffer;

  constructor(readonly capacity: number) {
    this.memory = Buffer.allocUnsafeSlow(HEADER_ROOM + capacity + TRAILER_BYTES);
  }

  /** The first `length` bytes of the data. */
  data(length: number): Buffer {
    return this.memory.subarray(HEADER_ROOM, HEADER_ROOM + length);
  }

  /**
   * The wire form of the first `length` bytes of the data, at least one, with their place and their checksum.
   * It is a view: the chunk must rest until it is sent.
   */
  encode(offset: number, length: number, checksum: Uint8Array): EncodedMessage {
    const header = [...(offset === 0 ? [] : [OFFSET_TAG, ...varint(offset)]), DATA_TAG, ...varint(length)];
    const start = HEADER_ROOM - header.length;
    const end = HEADER_ROOM + length;
    this.memory.set(header, start);
    this.memory.set([CHECKSUM_TAG, CHECKSUM_BYTES], end);
    this.memory.set(checksum, end + 2);
    return new EncodedMessage(this.memory.subarray(start, end + TRAILER_BYTES));
  }
}

/** Seven bits to a byte, the lowest first; not by shifts, which end at 32 bits. */
function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128);
  bytes.push(rest);
  return bytes;
}

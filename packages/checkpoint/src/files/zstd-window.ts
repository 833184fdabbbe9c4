/** What the reference decoder allows by default; the window of a frame is held in memory. */
export const MAXIMUM_ZSTD_WINDOW_BYTES = 1 << 27;

/** Bytes of the window that the first frame of zstd data asks for (RFC 8878); 0 for what is too short to say. */
export function zstdWindowBytes(content: Uint8Array): number {
  const bytes = Buffer.from(content.buffer, content.byteOffset, content.byteLength);
  const descriptor = bytes[4] ?? 0;
  if ((descriptor & 0x20) === 0) return windowOf(bytes[5] ?? 0);
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
  const sizeBytes = [1, 2, 4, 8][descriptor >> 6] ?? 0;
  const sizeAt = 5 + dictionaryBytes;
  return bytes.byteLength < sizeAt + sizeBytes ? 0 : readContentSize(bytes, sizeAt, sizeBytes);
}

function readContentSize(content: Buffer, position: number, bytes: number): number {
  switch (bytes) {
    case 1:
      return content.readUInt8(position);
    case 2:
      return content.readUInt16LE(position) + 256;
    case 4:
      return content.readUInt32LE(position);
    default:
      return Number(content.readBigUInt64LE(position));
  }
}

function windowOf(descriptor: number): number {
  const base = 2 ** (10 + (descriptor >> 3));
  return base + (base / 8) * (descriptor & 7);
}

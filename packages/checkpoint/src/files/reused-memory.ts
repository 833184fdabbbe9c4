/** One buffer for a series of reads, as large as the largest of them: fresh memory for each would wait for the garbage collector. */
export class ReusedMemory {
  private buffer = Buffer.alloc(0);

  /** Memory that begins at a multiple of 8 and is overwritten by who takes it next. */
  take(bytes: number): Buffer {
    if (this.buffer.byteLength < bytes) this.buffer = Buffer.allocUnsafeSlow(bytes);
    return this.buffer.subarray(0, bytes);
  }
}

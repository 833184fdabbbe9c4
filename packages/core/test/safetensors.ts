import { readFileSync } from 'node:fs';

interface Entry {
  readonly dtype: string;
  readonly data_offsets: readonly [number, number];
}

/** Tensors of a small safetensors file of our own. */
export class TensorFile {
  private readonly bytes: Buffer;
  private readonly dataOffset: number;
  private readonly entries: Readonly<Record<string, Entry>>;

  constructor(path: string) {
    this.bytes = readFileSync(path);
    this.dataOffset = 8 + Number(this.bytes.readBigUInt64LE(0));
    this.entries = JSON.parse(this.bytes.toString('utf8', 8, this.dataOffset)) as Record<string, Entry>;
  }

  float32(name: string): Float32Array {
    return new Float32Array(this.read(name, 'F32'));
  }

  int32(name: string): Int32Array {
    return new Int32Array(this.read(name, 'I32'));
  }

  uint8(name: string): Uint8Array {
    return new Uint8Array(this.read(name, 'U8'));
  }

  private entry(name: string): Entry {
    const entry = this.entries[name];
    if (entry === undefined) throw new Error(`There is no tensor ${name}.`);
    return entry;
  }

  private read(name: string, dtype: string): ArrayBuffer {
    const entry = this.entry(name);
    if (entry.dtype !== dtype) throw new Error(`${name} is ${entry.dtype}, not ${dtype}.`);
    const [begin, end] = entry.data_offsets;
    return new Uint8Array(this.bytes.subarray(this.dataOffset + begin, this.dataOffset + end)).buffer;
  }
}

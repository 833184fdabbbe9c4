/**
 * Reads what ptxas made of kernels from the fat binaries that nvcc leaves in a library, for every architecture. NVIDIA does not describe
 * these formats: what is read here is checked against what ptxas says itself (kernel-budgets.test.ts).
 */
import { readFileSync } from 'node:fs';

export interface CompiledKernel {
  readonly mangledName: string;
  /** Such as `sm_80`. */
  readonly architecture: string;
  /** Per thread. */
  readonly registers: number;
  /** Static, of a block. */
  readonly sharedBytes: number;
  /** Of a thread; registers that are spilled are there too. */
  readonly stackBytes: number;
  /** Of a block, by the kernel's launch bounds. */
  readonly threads: number;
}

export interface CompiledCode {
  readonly kernels: readonly CompiledKernel[];
  /** Of the PTX beside them, such as `compute_90`. */
  readonly ptxArchitectures: ReadonlySet<string>;
}

const fatBinaryMagic = 0xba55ed50;
const entryKind = { ptx: 1, elf: 2 };
/** Attributes of kernels in an ELF file for a GPU. */
const attribute = { maximumThreads: 0x05, frameBytes: 0x11, registers: 0x2f };
const sizedFormat = 4;
/** From sm_90 on the system has its part of the shared memory of every block. */
const reservedSharedBytes = (architecture: number) => (architecture >= 90 ? 1024 : 0);

interface Section {
  readonly name: string;
  readonly bytes: Buffer;
}

/** @param file a library, or a fat binary by itself */
export function readCompiledCode(file: string): CompiledCode {
  const bytes = readFileSync(file);
  const fatBinaries = isFatBinary(bytes) ? bytes : sectionOf(readSections(bytes), '.nv_fatbin');
  if (fatBinaries === undefined) throw new Error(`${file} has no code for GPUs.`);
  const kernels: CompiledKernel[] = [];
  const ptxArchitectures = new Set<string>();
  for (const { kind, architecture, content } of readEntries(fatBinaries)) {
    if (kind === entryKind.ptx) ptxArchitectures.add(`compute_${String(architecture)}`);
    if (kind === entryKind.elf) kernels.push(...readKernels(content, architecture));
  }
  return { kernels, ptxArchitectures };
}

function isFatBinary(bytes: Buffer): boolean {
  return bytes.readUInt32LE(0) === fatBinaryMagic;
}

/** Fat binaries that follow one another, each with the code for several architectures. */
function* readEntries(bytes: Buffer): Generator<{ kind: number; architecture: number; content: Buffer }> {
  for (let start = 0; start + 16 <= bytes.length;) {
    // They begin at multiples of 8 bytes.
    if (bytes.readUInt32LE(start) !== fatBinaryMagic) {
      start += 8;
      continue;
    }
    let entry = start + bytes.readUInt16LE(start + 6);
    const end = entry + Number(bytes.readBigUInt64LE(start + 8));
    while (entry < end) {
      const content = entry + bytes.readUInt32LE(entry + 4);
      const next = content + Number(bytes.readBigUInt64LE(entry + 8));
      yield { kind: bytes.readUInt16LE(entry), architecture: bytes.readUInt32LE(entry + 28), content: bytes.subarray(content, next) };
      entry = next;
    }
    start = end;
  }
}

function readKernels(elf: Buffer, architecture: number): CompiledKernel[] {
  const sections = readSections(elf);
  const symbols = readSymbols(sections);
  const bySymbol = (wanted: number) =>
    new Map(
      readAttributes(sectionOf(sections, '.nv.info') ?? Buffer.alloc(0))
        .filter(({ code }) => code === wanted)
        .map(({ value }) => [symbols[value.readUInt32LE(0)], value.readUInt32LE(4)]),
    );
  const registers = bySymbol(attribute.registers);
  const frameBytes = bySymbol(attribute.frameBytes);
  const prefix = '.nv.info.';
  return sections
    .filter(({ name }) => name.startsWith(prefix))
    .map(({ name, bytes }) => {
      const mangledName = name.slice(prefix.length);
      const bounds = readAttributes(bytes).find(({ code }) => code === attribute.maximumThreads);
      if (bounds === undefined) throw new Error(`${mangledName} has no launch bounds: give it __launch_bounds__.`);
      const shared = sectionOf(sections, `.nv.shared.${mangledName}`)?.length;
      return {
        mangledName,
        architecture: `sm_${String(architecture)}`,
        registers: known(registers.get(mangledName), mangledName),
        sharedBytes: shared === undefined ? 0 : shared - reservedSharedBytes(architecture),
        stackBytes: known(frameBytes.get(mangledName), mangledName),
        threads: bounds.value.readUInt32LE(0) * bounds.value.readUInt32LE(4) * bounds.value.readUInt32LE(8),
      };
    });
}

function known(value: number | undefined, kernel: string): number {
  if (value === undefined) throw new Error(`What ptxas made of ${kernel} is not where it was: has nvcc changed its format?`);
  return value;
}

/** Those that have a value of more than two bytes. */
function readAttributes(bytes: Buffer): { code: number; value: Buffer }[] {
  const attributes = [];
  for (let start = 0; start + 4 <= bytes.length;) {
    const end = start + 4 + (bytes[start] === sizedFormat ? bytes.readUInt16LE(start + 2) : 0);
    if (end > start + 4) attributes.push({ code: bytes.readUInt8(start + 1), value: bytes.subarray(start + 4, end) });
    start = end;
  }
  return attributes;
}

/** Of an ELF file of 64 bits. */
function readSections(elf: Buffer): Section[] {
  const headers = Number(elf.readBigUInt64LE(0x28));
  const headerBytes = elf.readUInt16LE(0x3a);
  const headerAt = (index: number) => elf.subarray(headers + index * headerBytes, headers + (index + 1) * headerBytes);
  const noBits = 8;
  const bytesOf = (header: Buffer) => {
    const begin = Number(header.readBigUInt64LE(24));
    const size = Number(header.readBigUInt64LE(32));
    // What is to be zero is not in the file.
    return header.readUInt32LE(4) === noBits ? Buffer.alloc(size) : elf.subarray(begin, begin + size);
  };
  const names = bytesOf(headerAt(elf.readUInt16LE(0x3e)));
  return Array.from({ length: elf.readUInt16LE(0x3c) }, (_, index) => {
    const header = headerAt(index);
    return { name: textAt(names, header.readUInt32LE(0)), bytes: bytesOf(header) };
  });
}

function readSymbols(sections: readonly Section[]): string[] {
  const entryBytes = 24;
  const names = sectionOf(sections, '.strtab') ?? Buffer.alloc(0);
  const table = sectionOf(sections, '.symtab') ?? Buffer.alloc(0);
  return Array.from({ length: table.length / entryBytes }, (_, index) => textAt(names, table.readUInt32LE(index * entryBytes)));
}

function sectionOf(sections: readonly Section[], name: string): Buffer | undefined {
  return sections.find((section) => section.name === name)?.bytes;
}

function textAt(bytes: Buffer, start: number): string {
  return bytes.toString('utf8', start, bytes.indexOf(0, start));
}

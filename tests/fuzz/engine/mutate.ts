import type { Random } from './random.js';

/** Longest input that mutation makes. */
const MAXIMUM_BYTES = 1 << 20;
/** What a piece is repeated to at most: enough for time that grows with the square to show. */
const REPEATED_BYTES = 1 << 18;

/** Numbers at the edges of their types, as text and as bytes. */
const NUMBERS = ['0', '-1', '1e999', '1e-999', '0.1', '127', '255', '65535', '2147483647', '4294967295', '9007199254740993', '-0', 'NaN'];
const TEXTS = ['null', 'true', '{}', '[]', '""', '__proto__', 'constructor', '../', '%00', '\0', '\ud83d\udc33', '\ufffd', '"', '\\', '\n'];
const BYTES = [0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff, 0x0a, 0x22, 0x2c, 0x5b, 0x7b];
const NESTED = ['[', '{"a":', '(', '((a'];

/** An input made of one out of a corpus by a few random changes; `words` are pieces that mean something to what reads it. */
export function mutate(corpus: readonly Buffer[], words: readonly string[], random: Random): Buffer {
  let input = random.pick(corpus);
  for (let changes = 1 + random.below(random.below(4) === 0 ? 12 : 3); changes > 0; changes--) input = change(input, corpus, words, random);
  return input.subarray(0, MAXIMUM_BYTES);
}

function change(input: Buffer, corpus: readonly Buffer[], words: readonly string[], random: Random): Buffer {
  const start = random.below(input.byteLength + 1);
  const end = Math.min(input.byteLength, start + random.below(random.below(2) === 0 ? 9 : input.byteLength + 1));
  switch (random.below(12)) {
    case 0:
      return flipBit(input, random);
    case 1:
      return splice(input, start, start + 1, Buffer.from([random.below(2) === 0 ? random.pick(BYTES) : random.below(256)]));
    case 2:
      return splice(input, start, end, Buffer.alloc(0));
    case 3:
      return splice(input, start, start, input.subarray(start, end));
    case 4:
      return input.subarray(0, start);
    case 5:
      return splice(input, start, random.below(2) === 0 ? start : end, Buffer.from(random.pick([...words, ...TEXTS])));
    case 6:
      return replaceNumber(input, random);
    case 7:
      return splice(input, start, start + 4, edgeInteger(random));
    case 8:
      return repeat(input, start, end, random);
    case 9:
      return crossOver(input, random.pick(corpus), random);
    case 10:
      return splice(input, start, start, Buffer.from(random.pick(NESTED).repeat(1 + random.below(20_000))));
    default:
      return moveMember(input, random);
  }
}

function splice(input: Buffer, start: number, end: number, replacement: Buffer): Buffer {
  return Buffer.concat([input.subarray(0, start), replacement, input.subarray(Math.min(end, input.byteLength))]);
}

function flipBit(input: Buffer, random: Random): Buffer {
  if (input.byteLength === 0) return input;
  const changed = Buffer.from(input);
  const position = random.below(changed.byteLength);
  changed[position] = changed[position]! ^ (1 << random.below(8));
  return changed;
}

/** Puts another number where digits stand. */
function replaceNumber(input: Buffer, random: Random): Buffer {
  const numbers = [...input.toString('latin1', 0, 1 << 16).matchAll(/-?\d+(?:\.\d+)?/g)];
  if (numbers.length === 0) return input;
  const { index, 0: digits } = random.pick(numbers);
  const near = String(Number(digits) + random.below(5) - 2);
  return splice(input, index, index + digits.length, Buffer.from(random.below(3) === 0 ? near : random.pick(NUMBERS)));
}

function edgeInteger(random: Random): Buffer {
  const bytes = Buffer.alloc(random.pick([2, 4, 8]), random.pick([0x00, 0xff]));
  if (random.below(2) === 0) bytes[random.below(2) === 0 ? 0 : bytes.byteLength - 1] = random.pick([0x00, 0x01, 0x7f, 0x80, 0xff]);
  return bytes;
}

function repeat(input: Buffer, start: number, end: number, random: Random): Buffer {
  const piece = input.subarray(start, end);
  if (piece.byteLength === 0) return input;
  const most = Math.max(1, Math.floor(REPEATED_BYTES / piece.byteLength));
  const times = 2 + random.below(random.below(4) === 0 ? most : Math.min(most, 40));
  return splice(input, start, end, Buffer.concat(Array.from({ length: times }, () => piece)));
}

function crossOver(input: Buffer, other: Buffer, random: Random): Buffer {
  return Buffer.concat([input.subarray(0, random.below(input.byteLength + 1)), other.subarray(random.below(other.byteLength + 1))]);
}

/** Copies the value of one member of a JSON text over that of another. */
function moveMember(input: Buffer, random: Random): Buffer {
  const values = [...input.toString('latin1', 0, 1 << 16).matchAll(/:\s*("[^"]*"|[^,}\]"[{]+)/g)];
  if (values.length < 2) return input;
  const [from, to] = [random.pick(values), random.pick(values)];
  return splice(input, to.index, to.index + to[0].length, Buffer.from(from[0], 'latin1'));
}

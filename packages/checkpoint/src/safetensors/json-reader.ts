import type { SecateurError } from '@secateur/core';

const MAXIMUM_SKIPPED_DEPTH = 32;
/** Names are kept to find those that occur twice. */
const MAXIMUM_MEMBERS = 1 << 20;
const MAXIMUM_SKIPPED_VALUES = 1 << 20;
const DIGITS = /(?:0|[1-9][0-9]{0,15})(?![0-9.eE+-])/y;
const NUMBER = /-?(?:0|[1-9][0-9]{0,400})(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,9})?/y;
const LITERAL = /true|false|null|-?(?:0|[1-9][0-9]{0,400})(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,9})?/y;

/**
 * Reads JSON of a known form straight from its text. Unlike JSON.parse it sees names that occur twice and keeps nothing
 * it was not asked for, so that hostile text costs no memory. What does not fit is thrown as `fail(what)`.
 */
export class JsonReader {
  private position = 0;
  private skippedValues = 0;

  constructor(
    private readonly text: string,
    private readonly fail: (what: string) => SecateurError,
  ) {}

  /** Reads an object; `onMember` must read the value of each member. */
  object(what: string, onMember: (name: string) => void): void {
    this.expect('{', what);
    if (this.accept('}')) return;
    const names = new Set<string>();
    do {
      const name = this.string('a name');
      if (names.has(name)) throw this.fail(`${what} names ${quote(name)} twice`);
      if (names.size === MAXIMUM_MEMBERS) throw this.fail(`${what} has more than ${MAXIMUM_MEMBERS} members`);
      names.add(name);
      this.expect(':', 'a colon after a name');
      onMember(name);
    } while (this.accept(','));
    this.expect('}', 'a comma or the end of an object');
  }

  /** Reads an array; `onElement` must read each element. */
  array(what: string, onElement: (index: number) => void): void {
    this.expect('[', what);
    if (this.accept(']')) return;
    let index = 0;
    do {
      onElement(index);
      index += 1;
    } while (this.accept(','));
    this.expect(']', 'a comma or the end of an array');
  }

  string(what: string): string {
    this.expect('"', what);
    const start = this.position - 1;
    let end = this.text.indexOf('"', this.position);
    while (end !== -1 && this.isEscaped(end)) end = this.text.indexOf('"', end + 1);
    if (end === -1) throw this.fail(`the text ends inside ${what}`);
    this.position = end + 1;
    const literal = this.text.slice(start, this.position);
    if (!/[\\\u0000-\u001f]/.test(literal)) return literal.slice(1, -1);
    try {
      return JSON.parse(literal) as string;
    } catch {
      throw this.fail(`${what} is not a valid JSON string`);
    }
  }

  /** Reads an integer from 0 to 2^53 - 1 written in digits only. */
  integer(what: string): number {
    this.skipSpace();
    DIGITS.lastIndex = this.position;
    const digits = DIGITS.exec(this.text)?.[0];
    const value = Number(digits);
    if (digits === undefined || !Number.isSafeInteger(value)) {
      throw this.fail(`${what} is not an integer from 0 to 2^53 - 1 (found ${quote(this.text.slice(this.position, this.position + 24))})`);
    }
    this.position += digits.length;
    return value;
  }

  /** Reads a number. */
  number(what: string): number {
    this.skipSpace();
    NUMBER.lastIndex = this.position;
    const literal = NUMBER.exec(this.text)?.[0];
    if (literal === undefined) {
      throw this.fail(`${what} is not a number (found ${quote(this.text.slice(this.position, this.position + 24))})`);
    }
    this.position += literal.length;
    return Number(literal);
  }

  /** Reads a value of any kind and drops it. Deep and numerous ones are refused, so that what passes may also be parsed as a whole. */
  skip(what: string, depth = 0): void {
    if (depth > MAXIMUM_SKIPPED_DEPTH) throw this.fail(`${what} is nested deeper than ${MAXIMUM_SKIPPED_DEPTH} levels`);
    this.skippedValues += 1;
    if (this.skippedValues > MAXIMUM_SKIPPED_VALUES) throw this.fail(`${what} holds more than ${MAXIMUM_SKIPPED_VALUES} values`);
    this.skipSpace();
    switch (this.text.charAt(this.position)) {
      case '{':
        this.object(what, () => this.skip(what, depth + 1));
        return;
      case '[':
        this.array(what, () => this.skip(what, depth + 1));
        return;
      case '"':
        this.string(what);
        return;
    }
    LITERAL.lastIndex = this.position;
    if (!LITERAL.test(this.text)) throw this.unexpected(what);
    this.position = LITERAL.lastIndex;
  }

  end(): void {
    this.skipSpace();
    if (this.position !== this.text.length) throw this.unexpected('the end of the text');
  }

  private expect(character: string, what: string): void {
    if (!this.accept(character)) throw this.unexpected(what);
  }

  private accept(character: string): boolean {
    this.skipSpace();
    if (this.text[this.position] !== character) return false;
    this.position += 1;
    return true;
  }

  private skipSpace(): void {
    for (;;) {
      const code = this.text.charCodeAt(this.position);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.position += 1;
    }
  }

  private isEscaped(position: number): boolean {
    let backslashes = 0;
    while (this.text[position - 1 - backslashes] === '\\') backslashes += 1;
    return backslashes % 2 === 1;
  }

  private unexpected(what: string): SecateurError {
    const found = this.position < this.text.length ? quote(this.text.slice(this.position, this.position + 24)) : 'the end of the text';
    return this.fail(`it is not valid JSON: expected ${what} at character ${this.position}, found ${found}`);
  }
}

/** A name as people should see it: quoted, without control characters, and never long. */
export function quote(name: string): string {
  return JSON.stringify(name.length > 200 ? `${name.slice(0, 200)}…` : name);
}

import { SecateurError } from '../errors.js';
import { showValue } from '../show-value.js';

/** The fields of one record of a task file. What is wrong is told with the record's place and the field. */
export class RecordFields {
  private readonly record: Readonly<Record<string, unknown>>;

  constructor(
    value: unknown,
    /** Where the record is, such as `boolq.jsonl, line 3`. */
    private readonly where: string,
  ) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw this.wrong('it is not an object');
    this.record = value as Record<string, unknown>;
  }

  has(name: string): boolean {
    return Object.hasOwn(this.record, name);
  }

  text(name: string): string {
    const value = this.record[name];
    if (typeof value !== 'string') throw this.wrong(`the field "${name}" is not a string`);
    return value;
  }

  /** At least two texts. */
  texts(name: string): string[] {
    const value = this.record[name];
    if (!Array.isArray(value) || value.length < 2 || !value.every((entry) => typeof entry === 'string')) {
      throw this.wrong(`the field "${name}" is not a list of at least two strings`);
    }
    return value;
  }

  /** A position below `count`, as a number or as its digits, counted from `base`. */
  position(name: string, count: number, base = 0): number {
    const value = this.record[name];
    const position = (typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value) as number;
    if (!Number.isInteger(position) || position < base || position >= base + count) {
      throw this.wrong(`the field "${name}" is ${showValue(value)}, not a whole number from ${base} to ${base + count - 1}`);
    }
    return position - base;
  }

  wrong(what: string): SecateurError {
    return new SecateurError('INVALID_DATA', `${this.where}: ${what}.`);
  }
}

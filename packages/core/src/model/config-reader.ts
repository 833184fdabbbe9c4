import { SecateurError } from '../errors.js';
import { showValue } from '../show-value.js';

/** Reads fields of a Hugging Face config.json and refuses what is not as it must be, by name and value. */
export class ConfigReader {
  private readonly fields: Readonly<Record<string, unknown>>;

  /** `path`: what stands before the names of fields in messages. */
  constructor(
    config: unknown,
    private readonly path = '',
  ) {
    if (typeof config !== 'object' || config === null || Array.isArray(config)) {
      throw new SecateurError('UNSUPPORTED_MODEL', 'config.json must hold one JSON object.');
    }
    this.fields = config as Record<string, unknown>;
  }

  /** A field that is absent or null counts as not given. */
  get(name: string): unknown {
    const value = Object.hasOwn(this.fields, name) ? this.fields[name] : undefined;
    return value ?? undefined;
  }

  /** Whether a field is there, be it null. */
  has(name: string): boolean {
    return Object.hasOwn(this.fields, name);
  }

  /** The fields of an object inside the config; none when it is not given. */
  section(name: string): ConfigReader {
    const value = this.get(name) ?? {};
    if (typeof value !== 'object' || Array.isArray(value)) throw this.refuse(name, 'an object');
    return new ConfigReader(value, `${this.path}${name}.`);
  }

  /** A whole number from 1 to `maximum`. */
  size(name: string, maximum: number, fallback?: number): number {
    return this.wholeNumber(name, 1, maximum, fallback);
  }

  /** A whole number from 0 to `maximum`. */
  count(name: string, maximum: number, fallback?: number): number {
    return this.wholeNumber(name, 0, maximum, fallback);
  }

  /** A finite number above 0. */
  positive(name: string, fallback?: number): number {
    const value = this.get(name) ?? fallback;
    if (typeof value !== 'number' || !Number.isFinite(value) || value <= 0) throw this.refuse(name, 'a number above 0');
    return value;
  }

  flag(name: string, fallback: boolean): boolean {
    const value = this.get(name) ?? fallback;
    if (typeof value !== 'boolean') throw this.refuse(name, 'true or false');
    return value;
  }

  /** Refuses the model unless the field is absent or one of the values. */
  require(name: string, ...accepted: readonly (string | number | boolean)[]): void {
    const value = this.get(name);
    if (value !== undefined && !accepted.some((candidate) => candidate === value)) {
      throw this.refuse(name, accepted.map((candidate) => JSON.stringify(candidate)).join(' or '));
    }
  }

  /** A list of so many words out of those accepted; undefined when it is not given. */
  words<Word extends string>(name: string, count: number, accepted: readonly Word[]): readonly Word[] | undefined {
    const value = this.get(name);
    if (value === undefined) return undefined;
    const isAccepted = (item: unknown): item is Word => accepted.some((word) => word === item);
    if (!Array.isArray(value) || value.length !== count || !value.every(isAccepted)) {
      throw this.refuse(name, `a list of ${count} words out of ${accepted.map((word) => JSON.stringify(word)).join(' and ')}`);
    }
    return value;
  }

  /** Refuses the model if the field is given. */
  refuseGiven(name: string): void {
    if (this.get(name) !== undefined) throw this.refuse(name, 'absent or null');
  }

  refuse(name: string, accepted: string): SecateurError {
    const value = this.get(name);
    const found = value === undefined ? 'it is missing' : `it is ${showValue(value)}`;
    return new SecateurError('UNSUPPORTED_MODEL', `config.json: ${this.path}${name} must be ${accepted}; ${found}.`);
  }

  private wholeNumber(name: string, minimum: number, maximum: number, fallback: number | undefined): number {
    const value = this.get(name) ?? fallback;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < minimum || value > maximum) {
      throw this.refuse(name, `a whole number from ${minimum} to ${maximum}`);
    }
    return value;
  }
}

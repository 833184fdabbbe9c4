import { SecateurError } from '@secateur/core';

/** Any number of characters of a name, or of folders of a path. */
const MANY = Symbol('many');
/** Patterns that one with braces may stand for. */
const MAXIMUM_ALTERNATIVES = 1000;

type IsCharacter = (character: string) => boolean;

/** What a pattern says of one name of a path. */
interface NamePattern {
  /** Whether it begins with a dot: nothing else stands for the dot of a hidden file or folder. */
  readonly isHidden: boolean;
  readonly characters: readonly (IsCharacter | typeof MANY)[];
}

/**
 * What tells whether a path matches a glob with `*`, `?`, `[a-z]`, `[!a-z]`, `{one,other}` and `**` for any folders; a backslash takes the next
 * character as it is. Undefined for a path that is none. Globs come from callers nobody knows, so this uses no regular expressions: those that they
 * are turned into elsewhere can take time that doubles with every character of a name.
 */
export function compileGlob(glob: string): ((path: string) => boolean) | undefined {
  if (!/[*?[{]/.test(glob)) return undefined;
  const alternatives = expandBraces(glob).map((pattern) => pattern.split('/').map((name) => (name === '**' ? MANY : parseName(name))));
  return (path) => {
    const names = path.split('/');
    return alternatives.some((pattern) => fits(pattern, names, matchesName, (name) => !name.startsWith('.')));
  };
}

function matchesName({ isHidden, characters }: NamePattern, name: string): boolean {
  return isHidden === name.startsWith('.') && fits(characters, Array.from(name), (isCharacter, character) => isCharacter(character));
}

/**
 * Whether items are as wanted, one by one, where MANY stands for any number of those that may be skipped. It is enough to try the last MANY with more
 * of them, so this takes at most as many steps as there are items times what is wanted.
 */
function fits<Wanted, Item>(
  wanted: readonly (Wanted | typeof MANY)[],
  items: readonly Item[],
  isAsWanted: (wanted: Wanted, item: Item) => boolean,
  maySkip: (item: Item) => boolean = () => true,
): boolean {
  let [place, item] = [0, 0];
  let last: { readonly place: number; skipped: number } | undefined;
  while (item < items.length) {
    const next = wanted[place];
    if (next === MANY) {
      place += 1;
      last = { place, skipped: item };
    } else if (next !== undefined && isAsWanted(next, items[item]!)) {
      place += 1;
      item += 1;
    } else if (last !== undefined && maySkip(items[last.skipped]!)) {
      last.skipped += 1;
      place = last.place;
      item = last.skipped;
    } else return false;
  }
  return wanted.slice(place).every((left) => left === MANY);
}

function parseName(pattern: string): NamePattern {
  const text = Array.from(pattern);
  const characters: (IsCharacter | typeof MANY)[] = [];
  for (let place = 0; place < text.length; place++) {
    const character = text[place]!;
    const set = character === '[' ? parseSet(text, place + 1) : undefined;
    if (character === '*') characters.push(MANY);
    else if (character === '?') characters.push(() => true);
    else if (set !== undefined) {
      characters.push(set.isCharacter);
      place = set.end;
    } else {
      if (character === '\\' && place + 1 < text.length) place += 1;
      const literal = text[place]!;
      characters.push((found) => found === literal);
    }
  }
  return { isHidden: /^\\?\./.test(pattern), characters };
}

/** A set of characters behind its bracket, and where it ends; undefined where it does not. */
function parseSet(text: readonly string[], start: number): { readonly isCharacter: IsCharacter; readonly end: number } | undefined {
  const isNegated = text[start] === '!' || text[start] === '^';
  const first = isNegated ? start + 1 : start;
  // A bracket that comes first is one of the set.
  const end = text.indexOf(']', first + 1);
  if (end === -1) return undefined;
  const ranges: { readonly from: string; readonly to: string }[] = [];
  for (let place = first; place < end; place++) {
    const isRange = text[place + 1] === '-' && place + 2 < end;
    ranges.push({ from: text[place]!, to: text[isRange ? place + 2 : place]! });
    if (isRange) place += 2;
  }
  const codeOf = (character: string): number => character.codePointAt(0)!;
  const isListed: IsCharacter = (character) =>
    ranges.some(({ from, to }) => codeOf(from) <= codeOf(character) && codeOf(character) <= codeOf(to));
  return { isCharacter: (character) => isListed(character) !== isNegated, end };
}

/** The patterns without braces that one stands for. */
function expandBraces(glob: string): string[] {
  const expanded: string[] = [];
  const left = [glob];
  for (let pattern = left.pop(); pattern !== undefined; pattern = left.pop()) {
    const braces = findBraces(pattern);
    if (braces === undefined) expanded.push(pattern);
    else left.push(...braces);
    if (expanded.length + left.length > MAXIMUM_ALTERNATIVES) {
      throw new SecateurError('INVALID_DATA', `${glob}: its braces stand for more than ${MAXIMUM_ALTERNATIVES} patterns; use * for some.`);
    }
  }
  return expanded;
}

/** A pattern with each of the choices of its first innermost braces; undefined when it has none. */
function findBraces(pattern: string): string[] | undefined {
  const open: { readonly start: number; readonly commas: number[] }[] = [];
  for (let place = 0; place < pattern.length; place++) {
    const character = pattern[place];
    if (character === '\\') place += 1;
    else if (character === '{') open.push({ start: place, commas: [] });
    else if (character === ',') open.at(-1)?.commas.push(place);
    else if (character === '}') {
      const { start, commas } = open.pop() ?? { start: place, commas: [] };
      // Braces without a comma are characters of the name.
      if (commas.length === 0) continue;
      const [before, after] = [pattern.slice(0, start), pattern.slice(place + 1)];
      const starts = [start, ...commas];
      return starts.map((from, index) => before + pattern.slice(from + 1, starts[index + 1] ?? place) + after);
    }
  }
  return undefined;
}

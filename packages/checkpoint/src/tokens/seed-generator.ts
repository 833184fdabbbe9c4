import type { RandomGenerator } from 'pure-rand/types/RandomGenerator';
import { mersenne } from 'pure-rand/generator/mersenne';

/** MT19937 seeded with the XOR of the seed's 32-bit halves: the same numbers on every platform. */
export function seedGenerator(seed: number): RandomGenerator {
  return mersenne(Math.trunc(seed / 2 ** 32) ^ (seed % 2 ** 32));
}

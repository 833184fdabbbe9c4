/** What a session holds of Gram matrices, stage by stage; only the engine's part of it is left out. */
import { describe, expect, test } from '@jest/globals';
import type { EngineSession } from '@secateur/native';
import { InputSite } from '@secateur/proto/statistics';
import { Resources } from '@secateur/rpc';
import { GramExchange } from './gram-exchange.js';
import type { PeerReader } from './peer-reader.js';

const COLUMNS = 8;
const STAGES: readonly (readonly InputSite[])[] = [[InputSite.ATTENTION_INPUT], [InputSite.ATTENTION_OUTPUT, InputSite.FEED_FORWARD_INPUT]];

const answer = <Value>(value: Value) => Promise.resolve({ value, timings: [], queuedNanoseconds: 0 });
const engine = {
  takeGramSums: () => answer({ groups: [0], sums: new Uint8Array(16), heldOut: new Uint8Array(0), drift: new Uint8Array(0) }),
  reduceGram: () => answer(new Float32Array(COLUMNS * COLUMNS)),
} as unknown as EngineSession;

describe('Gram matrices of a stage', () => {
  test('go when the sums of the next are taken, and stay when more is added to theirs', async () => {
    const resources = new Resources();
    const exchange = new GramExchange('session', engine, resources, {} as PeerReader);
    const { signal } = new AbortController();
    const prune = async (sites: readonly InputSite[]): Promise<string[]> => {
      const sums = await exchange.publishSums('block/0', sites);
      const made = await exchange.reduce(
        sums.map(({ resource }) => ({ columns: COLUMNS, driftRows: 0, sums: [resource!] })),
        signal,
      );
      return [...sums.map(({ resource }) => resource!), ...made].map(({ resource }) => resource);
    };
    const served = async (names: readonly string[]): Promise<boolean[]> =>
      Promise.all(
        names.map((name) =>
          resources.find(name).then(
            () => true,
            () => false,
          ),
        ),
      );
    const first = await prune(STAGES[0]!);
    const again = await prune(STAGES[0]!);
    expect(await served([...first, ...again])).toEqual([true, true, true, true]);
    const second = await prune(STAGES[1]!);
    expect(await served([...first, ...again])).toEqual([false, false, false, false]);
    expect(await served(second)).toEqual([true, true, true, true]);
    exchange.release('block/0');
    expect(await served(second)).toEqual([false, false, false, false]);
  });
});

import { describe, expect, test } from '@jest/globals';
import { ShardMemory } from './shard-memory.js';

const keep = (buffers: readonly Buffer[]): Promise<readonly Buffer[]> => Promise.resolve(buffers);

describe('memory of shards', () => {
  test('serves the next shard of the same sizes, in any order, each tensor its own', async () => {
    const memory = new ShardMemory(() => undefined);
    const first = await memory.use([8, 16, 8, 0], keep);
    const second = await memory.use([16, 8, 8, 4], keep);
    expect(first.map(({ byteLength }) => byteLength)).toEqual([8, 16, 8, 0]);
    expect(second.map(({ byteLength }) => byteLength)).toEqual([16, 8, 8, 4]);
    expect(new Set(second)).toEqual(new Set([first[0], first[1], first[2], second[3]]));
  });

  test('is not shared by shards that are pulled at the same time', async () => {
    const memory = new ShardMemory(() => undefined);
    const outer = await memory.use([8], async (buffers) => [...buffers, ...(await memory.use([8], keep))]);
    expect(outer[0]).not.toBe(outer[1]);
  });

  test('is not used again after a failure', async () => {
    const memory = new ShardMemory(() => undefined);
    let seen: Buffer | undefined;
    const failing = memory.use([8], ([buffer]) => {
      seen = buffer;
      return Promise.reject(new Error('broken'));
    });
    await expect(failing).rejects.toThrow('broken');
    expect((await memory.use([8], keep))[0]).not.toBe(seen);
  });

  test('tells of what it does not keep: other sizes, those of a failure, and one of two shards at the same time', async () => {
    const dropped: Buffer[] = [];
    const memory = new ShardMemory((buffer) => dropped.push(buffer));
    const [small, large] = await memory.use([8, 16], keep);
    const [again, other] = await memory.use([8, 4], keep);
    expect(again).toBe(small);
    expect(dropped.splice(0)).toEqual([large]);
    await expect(memory.use([8, 4], () => Promise.reject(new Error('broken')))).rejects.toThrow('broken');
    expect(new Set(dropped.splice(0))).toEqual(new Set([again, other]));
    const [outer, inner] = await memory.use([8], async (buffers) => [...buffers, ...(await memory.use([8], keep))]);
    expect(dropped).toEqual([inner]);
    expect((await memory.use([8], keep))[0]).toBe(outer);
  });
});

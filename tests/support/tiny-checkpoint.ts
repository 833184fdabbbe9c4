import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArchitecture, plannedTensors, planShapes } from '@secateur/core';
import { DataType } from '@secateur/proto/model';
import type { ModelConfig, Tensors } from './reference-model.js';

interface Entry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

/** A whole safetensors file. */
function encodeSafetensors(tensors: readonly { name: string; dtype: string; shape: readonly number[]; bytes: Uint8Array }[]): Buffer {
  const header: Record<string, Entry> = {};
  let offset = 0;
  for (const { name, dtype, shape, bytes } of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.byteLength] };
    offset += bytes.byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.byteLength));
  return Buffer.concat([length, text, ...tensors.map(({ bytes }) => bytes)]);
}

/** Numbers from 0 to 1 that are always the same. */
function* randomNumbers(seed: number): Generator<number, never> {
  for (let state = seed >>> 0; ;) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    yield state / 2 ** 32;
  }
}

/** Writes a checkpoint with a config.json and random float32 weights of the shapes it asks for. */
export async function writeTinyCheckpoint(directory: string, config: ModelConfig): Promise<void> {
  const random = randomNumbers(7);
  await mkdir(directory, { recursive: true });
  const tensors = plannedTensors(planShapes(parseArchitecture(config), DataType.F32)).map(({ name, shape }) => {
    const values = new Float32Array(shape.reduce((product, size) => product * size, 1));
    // Keeps activations near 1, as trained models do; weights of normalisations lie around 1.
    const scale = shape.length === 1 ? 0.5 : Math.sqrt(3 / shape.at(-1)!);
    const shift = name.includes('norm') && name.endsWith('.weight') ? 1 : 0;
    for (let i = 0; i < values.length; i++) values[i] = shift + scale * (2 * random.next().value - 1);
    return { name, dtype: 'F32', shape, bytes: new Uint8Array(values.buffer) };
  });
  await writeFile(join(directory, 'config.json'), JSON.stringify({ ...config, torch_dtype: 'float32' }));
  await writeFile(join(directory, 'model.safetensors'), encodeSafetensors(tensors));
}

/** The float32 tensors of a checkpoint in one file. */
export async function readTinyCheckpoint(directory: string): Promise<Tensors> {
  const file = await readFile(join(directory, 'model.safetensors'));
  const start = 8 + Number(file.readBigUInt64LE());
  const header = JSON.parse(file.toString('utf8', 8, start)) as Record<string, Entry>;
  return new Map(
    Object.entries(header)
      .filter(([name]) => name !== '__metadata__')
      .map(
        ([
          name,
          {
            data_offsets: [begin, end],
          },
        ]) => [name, new Float32Array(new Uint8Array(file.subarray(start + begin, start + end)).buffer)],
      ),
  );
}

/** Writes token ids as jobs read them, and returns them. */
export async function writeTinyTokens(path: string, samples: number, length: number, vocabulary: number): Promise<number[][]> {
  const random = randomNumbers(3);
  const ids = Array.from({ length: samples }, () => Array.from({ length }, () => Math.floor(random.next().value * vocabulary)));
  const bytes = new Uint8Array(Int32Array.from(ids.flat()).buffer);
  await writeFile(path, encodeSafetensors([{ name: 'input_ids', dtype: 'I32', shape: [samples, length], bytes }]));
  return ids;
}

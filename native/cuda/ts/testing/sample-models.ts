import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { ElementType, EngineArchitecture, EngineSession, EngineTensor, TensorRole } from '../engine.js';

const root = fileURLToPath(new URL('../../../../', import.meta.url));

interface StoredTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Buffer;
}

/** All tensors of a safetensors file that is known to be well-formed. */
export async function readTensors(path: string): Promise<ReadonlyMap<string, StoredTensor>> {
  const file = await readFile(`${root}${path}`);
  const start = 8 + Number(file.readBigUInt64LE());
  const header = JSON.parse(file.toString('utf8', 8, start)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  return new Map(
    Object.entries(header)
      .filter(([name]) => name !== '__metadata__')
      .map(
        ([
          name,
          {
            dtype,
            shape,
            data_offsets: [begin, end],
          },
        ]) => [name, { dtype, shape, bytes: file.subarray(start + begin, start + end) }],
      ),
  );
}

export function toFloats({ bytes }: StoredTensor): Float32Array {
  return Float32Array.from({ length: bytes.byteLength / 4 }, (_, index) => bytes.readFloatLE(4 * index));
}

export function toInts({ bytes }: StoredTensor): Int32Array {
  return Int32Array.from({ length: bytes.byteLength / 4 }, (_, index) => bytes.readInt32LE(4 * index));
}

const ROTARY = {
  'attention-norm': 'input_layernorm',
  query: 'self_attn.q_proj',
  key: 'self_attn.k_proj',
  value: 'self_attn.v_proj',
  output: 'self_attn.o_proj',
  'feed-forward-norm': 'post_attention_layernorm',
  gate: 'mlp.gate_proj',
  up: 'mlp.up_proj',
  down: 'mlp.down_proj',
};
const OPT = {
  'attention-norm': 'self_attn_layer_norm',
  query: 'self_attn.q_proj',
  key: 'self_attn.k_proj',
  value: 'self_attn.v_proj',
  output: 'self_attn.out_proj',
  'feed-forward-norm': 'final_layer_norm',
  up: 'fc1',
  down: 'fc2',
};

const SHARED = {
  vocabularySize: 4096,
  maximumPositions: 512,
  postNormalization: false,
  finalNormalization: true,
  embeddingSize: 0,
  rotaryScaling: null,
} as const;
const SMALL = { hiddenSize: 192, attentionHeads: 6, keyValueHeads: 6, headDimension: 32 } as const;
const ROTARY_KIND = {
  normalization: 'rms',
  positionEncoding: 'rotary',
  rotaryBase: 10_000,
  learnedPositionOffset: 0,
  feedForward: 'gated-silu',
} as const;
const LEARNED_KIND = {
  normalization: 'layer',
  positionEncoding: 'learned',
  rotaryBase: 0,
  learnedPositionOffset: 2,
  feedForward: 'relu',
} as const;

export interface SampleModel {
  readonly name: string;
  readonly architecture: EngineArchitecture;
  readonly decoder: string;
  readonly blockNames: Readonly<Record<string, string>>;
  readonly finalNorm: string;
  readonly head: string;
}

export const SAMPLE_MODELS: readonly SampleModel[] = [
  {
    name: 'books-qwen2',
    architecture: {
      ...SHARED,
      ...ROTARY_KIND,
      hiddenSize: 256,
      attentionHeads: 8,
      keyValueHeads: 2,
      headDimension: 32,
      intermediateSize: 704,
      normalizationEpsilon: 1e-6,
    },
    decoder: 'model',
    blockNames: ROTARY,
    finalNorm: 'model.norm',
    head: 'model.embed_tokens.weight',
  },
  {
    name: 'books-opt',
    architecture: { ...SHARED, ...SMALL, ...LEARNED_KIND, intermediateSize: 768, normalizationEpsilon: 1e-5 },
    decoder: 'model.decoder',
    blockNames: OPT,
    finalNorm: 'model.decoder.final_layer_norm',
    head: 'model.decoder.embed_tokens.weight',
  },
  {
    name: 'books-llama',
    architecture: { ...SHARED, ...SMALL, ...ROTARY_KIND, intermediateSize: 512, normalizationEpsilon: 1e-5 },
    decoder: 'model',
    blockNames: ROTARY,
    finalNorm: 'model.norm',
    head: 'lm_head.weight',
  },
];

export const SAMPLE_BLOCKS = ['block/0', 'block/1', 'block/2', 'block/3'] as const;

/** Loads the embedding, the four blocks and the head of a sample model. */
export async function loadSampleModel(session: EngineSession, model: SampleModel): Promise<void> {
  const tensors = await readTensors(`examples/models/${model.name}/model.safetensors`);
  const pick = (role: string, name: string): EngineTensor[] => {
    const stored = tensors.get(name);
    return stored === undefined ? [] : [{ ...stored, role: role as TensorRole, elementType: stored.dtype as ElementType }];
  };
  const both = (role: string, name: string): EngineTensor[] => [
    ...pick(`${role}-weight`, `${name}.weight`),
    ...pick(`${role}-bias`, `${name}.bias`),
  ];
  await session.loadShard('embedding', [
    ...pick('token-embedding', `${model.decoder}.embed_tokens.weight`),
    ...pick('position-embedding', `${model.decoder}.embed_positions.weight`),
  ]);
  for (const [index, shard] of SAMPLE_BLOCKS.entries()) {
    await session.loadShard(
      shard,
      Object.entries(model.blockNames).flatMap(([role, name]) => both(role, `${model.decoder}.layers.${index}.${name}`)),
    );
  }
  await session.loadShard('head', [...both('final-norm', model.finalNorm), ...pick('head-weight', model.head)]);
}

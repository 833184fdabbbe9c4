import {
  AttentionBiases,
  DataType,
  FeedForward,
  ModelFamily,
  Normalization,
  PositionEncoding,
  TensorRole,
  type Architecture,
} from '@secateur/proto/model';
import { InputSite } from '@secateur/proto/statistics';
import { SecateurError } from '../errors.js';
import type { ModelPlan, PlannedBlock, PlannedProjection, PlannedShard, PlannedTensor } from './model-plan.js';

/** A tensor as the checkpoint's header describes it. */
export interface StoredTensor {
  /** As in the file, such as `I64`. */
  readonly dtype: string;
  /** Unspecified for one that cannot be computed with, such as position ids: it is only carried along. */
  readonly dataType: DataType;
  readonly shape: readonly number[];
}

/** Tensors that some checkpoints carry and nothing reads. */
const INERT_SUFFIX = 'rotary_emb.inv_freq';

interface Wanted {
  readonly name: string;
  readonly role: TensorRole;
  readonly shape: readonly number[];
}

/** Names of the tensors of one block, relative to it. */
interface BlockNames {
  readonly attentionNorm: string;
  readonly queryNorm?: string;
  readonly keyNorm?: string;
  readonly query: string;
  readonly key: string;
  readonly value: string;
  readonly output: string;
  readonly feedForwardNorm: string;
  readonly gate?: string;
  readonly up: string;
  readonly down: string;
}

const ROTARY_BLOCK: BlockNames = {
  attentionNorm: 'input_layernorm',
  queryNorm: 'self_attn.q_norm',
  keyNorm: 'self_attn.k_norm',
  query: 'self_attn.q_proj',
  key: 'self_attn.k_proj',
  value: 'self_attn.v_proj',
  output: 'self_attn.o_proj',
  feedForwardNorm: 'post_attention_layernorm',
  gate: 'mlp.gate_proj',
  up: 'mlp.up_proj',
  down: 'mlp.down_proj',
};

const OPT_BLOCK: BlockNames = {
  attentionNorm: 'self_attn_layer_norm',
  query: 'self_attn.q_proj',
  key: 'self_attn.k_proj',
  value: 'self_attn.v_proj',
  output: 'self_attn.out_proj',
  feedForwardNorm: 'final_layer_norm',
  up: 'fc1',
  down: 'fc2',
};

/** Where planned tensors come from. */
interface TensorSource {
  has(name: string): boolean;
  /** What is known of a tensor that the architecture asks for. */
  find(wanted: Wanted): PlannedTensor;
  /** Nothing will ask for this tensor; the checkpoint may have it all the same. */
  ignore(name: string): void;
}

/**
 * Cuts a model into shards: embedding, blocks, head. Missing tensors, wrong shapes and tensors that would change the computation but are
 * not read are INVALID_CHECKPOINT, naming the tensor and what was expected.
 */
export function planModel(architecture: Architecture, tensors: ReadonlyMap<string, StoredTensor>): ModelPlan {
  const source = new StoredTensors(tensors);
  const plan = makePlan(architecture, source);
  source.refuseUnread();
  return plan;
}

/** The plan of a checkpoint that is not there, by the shapes that the architecture asks for. */
export function planShapes(architecture: Architecture, dataType: DataType): ModelPlan {
  return makePlan(architecture, {
    has: () => false,
    find: ({ name, role, shape }) => ({ name, role, shape, dataType }),
    ignore: () => undefined,
  });
}

/** All tensors of a plan, each once. */
export function plannedTensors({ embedding, blocks, head }: ModelPlan): PlannedTensor[] {
  const tensors = [embedding, ...blocks.map(({ shard }) => shard), head].flatMap((shard) => shard.tensors);
  return [...new Map(tensors.map((tensor) => [tensor.name, tensor])).values()];
}

function makePlan(architecture: Architecture, source: TensorSource): ModelPlan {
  const planner = new Planner(architecture, source);
  return {
    architecture,
    embedding: planner.embedding(),
    blocks: Array.from({ length: architecture.layers }, (_, index) => planner.block(index)),
    head: planner.head(),
  };
}

class StoredTensors implements TensorSource {
  private readonly read = new Set<string>();

  constructor(private readonly tensors: ReadonlyMap<string, StoredTensor>) {}

  has(name: string): boolean {
    return this.tensors.has(name);
  }

  ignore(name: string): void {
    this.read.add(name);
  }

  find({ name, role, shape }: Wanted): PlannedTensor {
    const stored = this.tensors.get(name);
    if (stored === undefined) {
      const problem = 'is missing; a file of the checkpoint was left out, or config.json is that of another model.';
      throw new SecateurError('INVALID_CHECKPOINT', `Tensor ${name} of shape [${shape.join(', ')}] ${problem}`);
    }
    if (stored.dataType === DataType.UNSPECIFIED) {
      const problem = `is stored as ${stored.dtype}; F32, F16 and BF16 can be computed with. Convert the checkpoint to one of them.`;
      throw new SecateurError('INVALID_CHECKPOINT', `Tensor ${name} ${problem}`);
    }
    if (stored.shape.length !== shape.length || stored.shape.some((size, axis) => size !== shape[axis])) {
      throw new SecateurError(
        'INVALID_CHECKPOINT',
        `Tensor ${name} has the shape [${stored.shape.join(', ')}]; config.json asks for [${shape.join(', ')}].`,
      );
    }
    this.read.add(name);
    return { name, role, dataType: stored.dataType, shape };
  }

  /** Anything inside the model that was not read would be ignored silently; a bias nobody adds, for example. */
  refuseUnread(): void {
    for (const [name, { dataType }] of this.tensors) {
      if (!this.read.has(name) && dataType !== DataType.UNSPECIFIED && !name.endsWith(INERT_SUFFIX)) {
        throw new SecateurError('INVALID_CHECKPOINT', `Tensor ${name} is not part of the architecture that config.json describes.`);
      }
    }
  }
}

class Planner {
  private readonly decoder: string;

  constructor(
    private readonly architecture: Architecture,
    private readonly source: TensorSource,
  ) {
    // Some OPT checkpoints were saved from the inner model and lack the first part of the names.
    const candidates = architecture.family === ModelFamily.OPT ? ['model.decoder', 'decoder'] : ['model'];
    this.decoder = candidates.find((prefix) => source.has(`${prefix}.embed_tokens.weight`)) ?? candidates[0]!;
  }

  embedding(): PlannedShard {
    const { hiddenSize, embeddingSize, maximumPositions, learnedPositionOffset, positionEncoding } = this.architecture;
    const wanted: Wanted[] = [this.tokenTable(TensorRole.TOKEN_EMBEDDING)];
    if (positionEncoding === PositionEncoding.LEARNED) {
      wanted.push({
        name: `${this.decoder}.embed_positions.weight`,
        role: TensorRole.POSITION_EMBEDDING,
        shape: [maximumPositions + learnedPositionOffset, hiddenSize],
      });
    }
    if (embeddingSize > 0) {
      wanted.push({
        name: `${this.decoder}.project_in.weight`,
        role: TensorRole.EMBEDDING_PROJECTION_WEIGHT,
        shape: [hiddenSize, embeddingSize],
      });
    }
    return this.shard('embedding', wanted);
  }

  block(index: number): PlannedBlock {
    const { hiddenSize, intermediateSize, attentionHeads, keyValueHeads, headDimension, family, ...architecture } = this.architecture;
    const names = family === ModelFamily.OPT ? OPT_BLOCK : ROTARY_BLOCK;
    const prefix = `${this.decoder}.layers.${index}`;
    const queryRows = attentionHeads * headDimension;
    const keyRows = keyValueHeads * headDimension;
    const projections: PlannedProjection[] = [];
    const wanted: Wanted[] = [
      ...this.norm(`${prefix}.${names.attentionNorm}`, TensorRole.ATTENTION_NORM_WEIGHT, TensorRole.ATTENTION_NORM_BIAS),
    ];
    const add = (
      name: string | undefined,
      role: TensorRole,
      biasRole: TensorRole | undefined,
      rows: number,
      columns: number,
      site: InputSite,
    ): void => {
      if (name === undefined) return;
      const weight = `${prefix}.${name}.weight`;
      projections.push({ name: weight, role, rows, columns, site });
      wanted.push({ name: weight, role, shape: [rows, columns] });
      if (biasRole !== undefined) wanted.push({ name: `${prefix}.${name}.bias`, role: biasRole, shape: [rows] });
    };
    const attentionBias = architecture.attentionBiases !== AttentionBiases.NONE;
    const outputBias = architecture.attentionBiases === AttentionBiases.ALL;
    const feedForwardBias = architecture.feedForwardBiases;
    const biased = (has: boolean, role: TensorRole): TensorRole | undefined => (has ? role : undefined);
    add(
      names.query,
      TensorRole.QUERY_WEIGHT,
      biased(attentionBias, TensorRole.QUERY_BIAS),
      queryRows,
      hiddenSize,
      InputSite.ATTENTION_INPUT,
    );
    add(names.key, TensorRole.KEY_WEIGHT, biased(attentionBias, TensorRole.KEY_BIAS), keyRows, hiddenSize, InputSite.ATTENTION_INPUT);
    add(names.value, TensorRole.VALUE_WEIGHT, biased(attentionBias, TensorRole.VALUE_BIAS), keyRows, hiddenSize, InputSite.ATTENTION_INPUT);
    add(
      names.output,
      TensorRole.OUTPUT_WEIGHT,
      biased(outputBias, TensorRole.OUTPUT_BIAS),
      hiddenSize,
      queryRows,
      InputSite.ATTENTION_OUTPUT,
    );
    if (architecture.queryKeyNormalization) {
      wanted.push(
        { name: `${prefix}.${names.queryNorm}.weight`, role: TensorRole.QUERY_NORM_WEIGHT, shape: [headDimension] },
        { name: `${prefix}.${names.keyNorm}.weight`, role: TensorRole.KEY_NORM_WEIGHT, shape: [headDimension] },
      );
    }
    wanted.push(...this.norm(`${prefix}.${names.feedForwardNorm}`, TensorRole.FEED_FORWARD_NORM_WEIGHT, TensorRole.FEED_FORWARD_NORM_BIAS));
    if (architecture.feedForward === FeedForward.GATED_SILU) {
      add(
        names.gate,
        TensorRole.GATE_WEIGHT,
        biased(feedForwardBias, TensorRole.GATE_BIAS),
        intermediateSize,
        hiddenSize,
        InputSite.FEED_FORWARD_INPUT,
      );
    }
    add(
      names.up,
      TensorRole.UP_WEIGHT,
      biased(feedForwardBias, TensorRole.UP_BIAS),
      intermediateSize,
      hiddenSize,
      InputSite.FEED_FORWARD_INPUT,
    );
    add(
      names.down,
      TensorRole.DOWN_WEIGHT,
      biased(feedForwardBias, TensorRole.DOWN_BIAS),
      hiddenSize,
      intermediateSize,
      InputSite.FEED_FORWARD_HIDDEN,
    );
    const window = architecture.slidingLayers.includes(index) ? architecture.slidingWindow : 0;
    return { index, shard: this.shard(`block/${index}`, wanted, window), projections };
  }

  head(): PlannedShard {
    const { family, finalNormalization, embeddingSize, hiddenSize } = this.architecture;
    const norm = family === ModelFamily.OPT ? 'final_layer_norm' : 'norm';
    const wanted: Wanted[] = finalNormalization
      ? this.norm(`${this.decoder}.${norm}`, TensorRole.FINAL_NORM_WEIGHT, TensorRole.FINAL_NORM_BIAS)
      : [];
    if (embeddingSize > 0) {
      wanted.push({
        name: `${this.decoder}.project_out.weight`,
        role: TensorRole.HEAD_PROJECTION_WEIGHT,
        shape: [embeddingSize, hiddenSize],
      });
    }
    return this.shard('head', [...wanted, this.tokenTable(TensorRole.HEAD_WEIGHT)]);
  }

  /** The table of the vocabulary in a role; tied models store it under either name. */
  private tokenTable(role: TensorRole): Wanted {
    const { vocabularySize, hiddenSize, embeddingSize, tiedEmbeddings } = this.architecture;
    const embedding = `${this.decoder}.embed_tokens.weight`;
    const head = 'lm_head.weight';
    const tiedName = this.source.has(head) && !this.source.has(embedding) ? head : embedding;
    const untiedName = role === TensorRole.HEAD_WEIGHT ? head : embedding;
    const name = tiedEmbeddings ? tiedName : untiedName;
    // A tied model that stores its head too uses the embedding all the same.
    if (tiedEmbeddings) this.source.ignore(head);
    return { name, role, shape: [vocabularySize, embeddingSize === 0 ? hiddenSize : embeddingSize] };
  }

  private norm(name: string, weightRole: TensorRole, biasRole: TensorRole): Wanted[] {
    const shape = [this.architecture.hiddenSize];
    const weight = { name: `${name}.weight`, role: weightRole, shape };
    return this.architecture.normalization === Normalization.LAYER ? [weight, { name: `${name}.bias`, role: biasRole, shape }] : [weight];
  }

  private shard(id: string, wanted: readonly Wanted[], attentionWindow = 0): PlannedShard {
    return { id, tensors: wanted.map((tensor) => this.source.find(tensor)), attentionWindow };
  }
}

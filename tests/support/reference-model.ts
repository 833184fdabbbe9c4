/** Whole models in float64, read from config.json and tensors as transformers names them: what the engine's losses are held to. */

/** Fields of a Hugging Face config.json, as far as the reference knows them. */
export interface ModelConfig {
  readonly model_type: 'qwen2' | 'qwen3' | 'llama' | 'mistral' | 'opt';
  readonly hidden_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly vocab_size: number;
  readonly max_position_embeddings: number;
  readonly num_key_value_heads?: number;
  readonly head_dim?: number;
  readonly intermediate_size?: number;
  readonly ffn_dim?: number;
  readonly rms_norm_eps?: number;
  readonly rope_theta?: number;
  readonly rope_scaling?: {
    readonly rope_type: 'linear' | 'llama3';
    readonly factor: number;
    readonly low_freq_factor?: number;
    readonly high_freq_factor?: number;
    readonly original_max_position_embeddings?: number;
  };
  readonly sliding_window?: number | null;
  readonly use_sliding_window?: boolean;
  readonly max_window_layers?: number;
  readonly attention_bias?: boolean;
  readonly mlp_bias?: boolean;
  readonly do_layer_norm_before?: boolean;
  readonly word_embed_proj_dim?: number;
  readonly tie_word_embeddings: boolean;
}

/** By name, row-major. */
export type Tensors = ReadonlyMap<string, Float32Array>;

type Rows = number[][];

/** Mean loss of tokens 1 … T-1 of one sample. */
export function referenceLoss(config: ModelConfig, tensors: Tensors, ids: readonly number[]): number {
  const logits = new ReferenceModel(config, tensors).logits(ids);
  const losses = ids.slice(1).map((next, position) => {
    const row = logits[position]!;
    return Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0)) - row[next]!;
  });
  return losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
}

class ReferenceModel {
  private readonly isOpt: boolean;
  private readonly decoder: string;
  private readonly headSize: number;

  constructor(
    private readonly config: ModelConfig,
    private readonly tensors: Tensors,
  ) {
    this.isOpt = config.model_type === 'opt';
    this.decoder = this.isOpt ? 'model.decoder' : 'model';
    this.headSize = config.head_dim ?? config.hidden_size / config.num_attention_heads;
  }

  logits(ids: readonly number[]): Rows {
    const { decoder } = this;
    let states = ids.map((id) =>
      this.row(`${decoder}.embed_tokens.weight`, id, this.config.word_embed_proj_dim ?? this.config.hidden_size),
    );
    if (this.tensors.has(`${decoder}.project_in.weight`)) states = this.linear(`${decoder}.project_in`, states);
    if (this.isOpt) {
      states = add(
        states,
        ids.map((_, position) => this.row(`${decoder}.embed_positions.weight`, position + 2, this.config.hidden_size)),
      );
    }
    for (let layer = 0; layer < this.config.num_hidden_layers; layer++) states = this.block(layer, states);
    const finalNorm = `${decoder}.${this.isOpt ? 'final_layer_norm' : 'norm'}`;
    if (this.tensors.has(`${finalNorm}.weight`)) states = this.norm(finalNorm, states);
    if (this.tensors.has(`${decoder}.project_out.weight`)) states = this.linear(`${decoder}.project_out`, states);
    return this.linear(this.config.tie_word_embeddings ? `${decoder}.embed_tokens` : 'lm_head', states);
  }

  private block(layer: number, states: Rows): Rows {
    const prefix = `${this.decoder}.layers.${layer}`;
    const attentionNorm = `${prefix}.${this.isOpt ? 'self_attn_layer_norm' : 'input_layernorm'}`;
    const feedForwardNorm = `${prefix}.${this.isOpt ? 'final_layer_norm' : 'post_attention_layernorm'}`;
    if (this.config.do_layer_norm_before === false) {
      const attended = this.norm(attentionNorm, add(states, this.attention(prefix, layer, states)));
      return this.norm(feedForwardNorm, add(attended, this.feedForward(prefix, attended)));
    }
    const attended = add(states, this.attention(prefix, layer, this.norm(attentionNorm, states)));
    return add(attended, this.feedForward(prefix, this.norm(feedForwardNorm, attended)));
  }

  private attention(prefix: string, layer: number, inputs: Rows): Rows {
    const { num_attention_heads: heads, num_key_value_heads: keyHeads = heads } = this.config;
    const window = this.windowOf(layer);
    const prepare = (name: 'q' | 'k'): Rows[] =>
      this.heads(this.linear(`${prefix}.self_attn.${name}_proj`, inputs)).map((rows) => {
        const norm = `${prefix}.self_attn.${name}_norm`;
        const normed = this.tensors.has(`${norm}.weight`) ? this.norm(norm, rows) : rows;
        return this.isOpt ? normed : normed.map((row, position) => this.rotate(row, position));
      });
    const queries = prepare('q');
    const keys = prepare('k');
    const values = this.heads(this.linear(`${prefix}.self_attn.v_proj`, inputs));
    const mixed = inputs.map((_, position) =>
      queries.flatMap((head, index) => {
        const shared = Math.floor(index / (heads / keyHeads));
        const first = Math.max(0, position + 1 - window);
        const weights = keys[shared]!.slice(first, position + 1).map((key) =>
          Math.exp(dot(head[position]!, key) / Math.sqrt(this.headSize)),
        );
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        return Array.from({ length: this.headSize }, (_, i) =>
          weights.reduce((sum, weight, offset) => sum + (weight / total) * values[shared]![first + offset]![i]!, 0),
        );
      }),
    );
    return this.linear(`${prefix}.self_attn.${this.isOpt ? 'out_proj' : 'o_proj'}`, mixed);
  }

  private feedForward(prefix: string, inputs: Rows): Rows {
    if (this.isOpt) {
      const raised = this.linear(`${prefix}.fc1`, inputs).map((row) => row.map((value) => Math.max(value, 0)));
      return this.linear(`${prefix}.fc2`, raised);
    }
    const gates = this.linear(`${prefix}.mlp.gate_proj`, inputs);
    const raised = this.linear(`${prefix}.mlp.up_proj`, inputs);
    const activated = gates.map((row, token) => row.map((gate, i) => (gate / (1 + Math.exp(-gate))) * raised[token]![i]!));
    return this.linear(`${prefix}.mlp.down_proj`, activated);
  }

  private windowOf(layer: number): number {
    const { model_type: type, sliding_window: window, use_sliding_window: used = false, max_window_layers: first = 0 } = this.config;
    const slides = type === 'mistral' || (type.startsWith('qwen') && used && layer >= first);
    return slides && typeof window === 'number' ? window : Infinity;
  }

  /** Per head, [tokens, headSize]. */
  private heads(rows: Rows): Rows[] {
    const count = rows[0]!.length / this.headSize;
    return Array.from({ length: count }, (_, head) => rows.map((row) => row.slice(head * this.headSize, (head + 1) * this.headSize)));
  }

  private rotate(row: readonly number[], position: number): number[] {
    const half = row.length / 2;
    return row.map((value, i) => {
      const angle = position * this.frequency(i % half);
      const other = i < half ? -row[i + half]! : row[i - half]!;
      return value * Math.cos(angle) + other * Math.sin(angle);
    });
  }

  private frequency(pair: number): number {
    const { rope_theta: base = 10_000, rope_scaling: scaling } = this.config;
    const frequency = base ** ((-2 * pair) / this.headSize);
    if (scaling === undefined) return frequency;
    if (scaling.rope_type === 'linear') return frequency / scaling.factor;
    const { low_freq_factor: low = 1, high_freq_factor: high = 4, original_max_position_embeddings: original = 8192, factor } = scaling;
    const waveLength = (2 * Math.PI) / frequency;
    if (waveLength < original / high) return frequency;
    if (waveLength > original / low) return frequency / factor;
    const smooth = (original / waveLength - low) / (high - low);
    return ((1 - smooth) * frequency) / factor + smooth * frequency;
  }

  private norm(name: string, rows: Rows): Rows {
    const weight = this.tensor(`${name}.weight`);
    const bias = this.tensors.get(`${name}.bias`);
    const epsilon = this.isOpt ? 1e-5 : (this.config.rms_norm_eps ?? 1e-6);
    return rows.map((row) => {
      const mean = this.isOpt ? row.reduce((sum, value) => sum + value, 0) / row.length : 0;
      const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / row.length;
      return row.map((value, i) => ((value - mean) / Math.sqrt(variance + epsilon)) * weight[i]! + (bias?.[i] ?? 0));
    });
  }

  private linear(name: string, rows: Rows): Rows {
    const weight = this.tensor(`${name}.weight`);
    const bias = this.tensors.get(`${name}.bias`);
    const columns = rows[0]!.length;
    const outputs = Array.from({ length: weight.length / columns }, (_, row) => weight.subarray(row * columns, (row + 1) * columns));
    return rows.map((input) => outputs.map((row, i) => dot(input, row) + (bias?.[i] ?? 0)));
  }

  private row(name: string, index: number, width: number): number[] {
    return [...this.tensor(name).subarray(index * width, (index + 1) * width)];
  }

  private tensor(name: string): Float32Array {
    const tensor = this.tensors.get(name);
    if (tensor === undefined) throw new Error(`There is no tensor ${name}.`);
    return tensor;
  }
}

function add(left: Rows, right: Rows): Rows {
  return left.map((row, token) => row.map((value, i) => value + right[token]![i]!));
}

function dot(left: ArrayLike<number>, right: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < left.length; i++) sum += left[i]! * right[i]!;
  return sum;
}

#include "cpu/block.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/rotary_tables.h"
#include "common/shard_layout.h"
#include "common/sketch_signs.h"
#include "cpu/attention.h"
#include "cpu/vector_math.h"

namespace secateur::cpu {

namespace {

// Tokens of a work item: enough for the matrix products to run at full speed, few enough for many threads.
constexpr std::size_t kTokenTile = 256;
constexpr std::size_t kSites = 4;

// Sizes of what a run of a block needs for a group.
struct WorkSizes {
  std::size_t tokens;
  std::size_t tiles;
  std::size_t tile_tokens;
  AttentionLayout attention;
  // Per thread: floats for the activations of a tile or the scores of a head, bytes for the copies that products read.
  std::size_t scratch;
  std::size_t copies;
  std::size_t widths[kSites];
  std::size_t samples;

  WorkSizes(const Architecture& a, std::span<const ProjectionForm> projections, std::size_t group_samples, std::size_t length)
      : tokens(group_samples * length),
        tiles((length + kTokenTile - 1) / kTokenTile),
        tile_tokens(std::min(kTokenTile, length)),
        attention(attention_layout(length, a.head_dimension)),
        copies(ProjectionWorkspace::bytes(projections, tile_tokens)),
        widths{a.hidden_size, a.query_width(), a.hidden_size, a.intermediate_size},
        samples(group_samples) {
    // Threads' parts begin on cache lines.
    constexpr std::size_t kLineFloats = 16;
    const std::size_t raised = a.feed_forward == FeedForward::kGatedSilu ? 2 : 1;
    const std::size_t tile = tile_tokens * (2 * a.hidden_size + raised * a.intermediate_size);
    scratch = (std::max(tile, attention.total) + kLineFloats - 1) / kLineFloats * kLineFloats;
  }
};

// The parts of a work space, one after the other, each on cache lines of its own. Without memory it only counts the bytes.
struct WorkSpace {
  // First of all, for the others are found by counting it up.
  std::size_t bytes = 0;
  // [tokens, width]
  float* queries;
  float* keys;
  float* values;
  float* attended;
  // Per thread.
  float* scratch;
  std::uint8_t* copies;
  // Per site [samples, tiles, width]: sums of squares of each tile, to be added in order.
  double* tile_sums[kSites] = {};
  // Per site [samples, tiles, sketches, width]: random-sign sums of each tile, to be added in order.
  float* tile_sketches[kSites] = {};
  // Per site [tokens, width], where they are added to a Gram matrix.
  float* gram_inputs[kSites] = {};

  WorkSpace(const Architecture& a, const WorkSizes& sizes, std::size_t threads, const std::optional<Collected>& collected,
            std::uint8_t* memory)
      : queries(take<float>(memory, sizes.tokens * a.query_width())),
        keys(take<float>(memory, sizes.tokens * a.key_width())),
        values(take<float>(memory, sizes.tokens * a.key_width())),
        attended(take<float>(memory, sizes.tokens * a.query_width())),
        scratch(take<float>(memory, threads * sizes.scratch)),
        copies(take<std::uint8_t>(memory, threads * sizes.copies)) {
    if (!collected) return;
    for (std::size_t site = 0; site < kSites; ++site) {
      const std::size_t width = sizes.widths[site];
      const std::size_t sums = sizes.samples * sizes.tiles * width;
      tile_sums[site] = take<double>(memory, sums);
      tile_sketches[site] = take<float>(memory, sums * collected->sketches);
      if (collected->gram_sites.contains(static_cast<InputSite>(site))) gram_inputs[site] = take<float>(memory, sizes.tokens * width);
    }
  }

 private:
  template <class T>
  T* take(std::uint8_t* memory, std::size_t size) {
    constexpr std::size_t kLine = 64;
    const std::size_t begin = bytes;
    bytes += (size * sizeof(T) + kLine - 1) / kLine * kLine;
    return memory == nullptr ? nullptr : reinterpret_cast<T*>(memory + begin);
  }
};

// 1 or -1 for tokens from a position on, which begins a word of signs.
void fill_signs(const SketchPlace& place, std::size_t first, std::span<float> signs) {
  for (std::size_t token = 0; token < signs.size(); token += kSignsTogether) {
    const std::uint64_t negative = sketch_signs(place, (first + token) / kSignsTogether);
    for (std::size_t i = token; i < std::min(token + kSignsTogether, signs.size()); ++i) {
      signs[i] = (negative >> (i - token) & 1U) != 0 ? -1.0F : 1.0F;
    }
  }
}

struct SketchShape {
  std::size_t samples;
  std::size_t tiles;
  std::size_t sketches;
  std::size_t width;
};

// Adds the sums of the tiles of each sample in order and divides by the root of its tokens: sketches are then about as large as one input.
// sums: [samples, tiles, sketches, width]; result: [samples, sketches, width].
void add_sketches(const float* sums, const SketchShape& shape, std::size_t tokens, std::vector<float>& result) {
  const std::size_t values = shape.sketches * shape.width;
  const double scale = 1 / std::sqrt(static_cast<double>(tokens));
  for (std::size_t sample = 0; sample < shape.samples; ++sample) {
    const float* const of_sample = sums + sample * shape.tiles * values;
    for (std::size_t i = 0; i < values; ++i) {
      double sum = 0;
      for (std::size_t tile = 0; tile < shape.tiles; ++tile) sum += static_cast<double>(of_sample[tile * values + i]);
      result[sample * values + i] = static_cast<float>(sum * scale);
    }
  }
}

}  // namespace

std::uint64_t block_work_bytes(const Architecture& architecture, std::span<const ProjectionForm> projections, std::size_t samples,
                               std::size_t sequence_length, std::size_t threads, const std::optional<Collected>& collected) {
  const WorkSizes sizes(architecture, projections, samples, sequence_length);
  return WorkSpace(architecture, sizes, threads, collected, nullptr).bytes;
}

std::uint64_t block_drift_bytes(const Architecture& architecture, std::size_t tokens, InputSites sites) {
  std::uint64_t bytes = 0;
  for (std::size_t site = 0; site < kSites; ++site) {
    if (sites.contains(static_cast<InputSite>(site)))
      bytes += tokens * drift_shape(architecture, static_cast<InputSite>(site)).rows * sizeof(float);
  }
  return bytes;
}

std::uint64_t rotary_table_bytes(const Architecture& architecture, std::size_t sequence_length) {
  if (architecture.position_encoding != PositionEncoding::kRotary) return 0;
  return 2 * sequence_length * (architecture.head_dimension / 2) * sizeof(float);
}

void normalize(const Architecture& architecture, const float* x, const float* weight, const float* bias, std::size_t tokens,
               float* result) {
  const std::size_t size = architecture.hidden_size;
  for (std::size_t token = 0; token < tokens; ++token) {
    if (architecture.normalization == Normalization::kRms) {
      vector_math().rms_norm(x + token * size, weight, size, architecture.normalization_epsilon, result + token * size);
    } else {
      vector_math().layer_norm(x + token * size, weight, bias, size, architecture.normalization_epsilon, result + token * size);
    }
  }
}

// One run of a block over a group: what it reads, what it fills.
struct BlockRunner::Pass {
  const Shard& block;
  const Group& group;
  CallContext& context;
  // Set when the block's output is wanted; may be the group's own hidden states.
  StateBuffer* output = nullptr;
  // Statistics are wanted of these; without an output the block runs to the last of them.
  InputSites sites = {};
  // What the inputs of wanted sites are added to.
  GramTargets grams = {};
  // Of each sample; 0 for its last inputs.
  std::size_t sketches = 0;
  // The hidden states of the dense model pass through the block as it was loaded; nothing is collected.
  bool dense = false;
  // Where the drift of wanted sites is found, or null: what the dense model has is put there, what the pruned one has is taken off.
  std::array<float*, kSites> drift = {};
  // Of each wanted site.
  std::vector<SiteStatistics> statistics = {};

  const StateBuffer& states() const { return dense ? *group.dense : group.hidden; }
  const Projection& projection(TensorRole role) const { return dense ? block.dense_projection(role) : block.projection(role); }
  std::size_t samples() const { return group.tokens.samples; }
  std::size_t length() const { return group.tokens.sequence_length; }
};

BlockRunner::BlockRunner(const Architecture& architecture, MemoryBudget& budget, ThreadPool& pool)
    : architecture_(architecture), budget_(budget), pool_(pool) {}

std::vector<SiteStatistics> BlockRunner::collect(const Shard& block, const Group& group, InputSites sites, const GramTargets& grams,
                                                 std::size_t sketches, CallContext& context) {
  Pass pass{block, group, context, nullptr, sites, grams, sketches};
  InputSites drifting = {};
  for (std::size_t site = 0; site < kSites; ++site) {
    if (grams[site].drift != nullptr) drifting.add(static_cast<InputSite>(site));
  }
  if (!drifting.empty()) {
    const std::size_t size = block_drift_bytes(architecture_, group.tokens.ids.size(), drifting) / sizeof(float);
    if (drift_.size() < size) {
      drift_ = {};
      drift_ = Buffer<float>(budget_, size, "the drift of a group");
    }
    float* free = drift_.data();
    for (std::size_t site = 0; site < kSites; ++site) {
      if (grams[site].drift == nullptr) continue;
      pass.drift[site] = free;
      free += group.tokens.ids.size() * grams[site].drift->shape().rows;
    }
    Pass dense{block, group, context, nullptr, drifting};
    dense.dense = true;
    dense.drift = pass.drift;
    run(dense);
  }
  run(pass);
  return std::move(pass.statistics);
}

void BlockRunner::propagate_dense(const Shard& block, Group& group, CallContext& context) {
  Pass pass{block, group, context, &*group.dense};
  pass.dense = true;
  run(pass);
}

void BlockRunner::propagate(const Shard& block, Group& group, CallContext& context) { run_into(block, group, group.hidden, context); }

void BlockRunner::run_into(const Shard& block, const Group& group, StateBuffer& output, CallContext& context) {
  Pass pass{block, group, context, &output};
  run(pass);
}

void BlockRunner::make_rotary_tables(std::size_t sequence_length) {
  if (architecture_.position_encoding != PositionEncoding::kRotary || rotary_positions_ >= sequence_length) return;
  const std::size_t half = architecture_.head_dimension / 2;
  rotary_positions_ = 0;
  cosines_ = Buffer<float>(budget_, sequence_length * half, "cosines of the positions");
  sines_ = Buffer<float>(budget_, sequence_length * half, "sines of the positions");
  fill_rotary_tables(architecture_, sequence_length, cosines_.data(), sines_.data());
  rotary_positions_ = sequence_length;
}

void BlockRunner::run(Pass& pass) {
  const Architecture& a = architecture_;
  const Shard& block = pass.block;
  CallContext& context = pass.context;
  const std::size_t hidden = a.hidden_size;
  const std::size_t query_width = a.query_width();
  const std::size_t key_width = a.key_width();
  const std::size_t intermediate = a.intermediate_size;
  const std::size_t samples = pass.samples();
  const std::size_t length = pass.length();
  const bool gated = a.feed_forward == FeedForward::kGatedSilu;
  const std::size_t sketches = pass.sketches;
  std::optional<Collected> collected;
  if (!pass.sites.empty() && !pass.dense) {
    collected.emplace();
    collected->sketches = sketches;
    for (std::size_t site = 0; site < kSites; ++site) {
      if (pass.grams[site].sums != nullptr) collected->gram_sites.add(static_cast<InputSite>(site));
    }
  }
  make_rotary_tables(length);

  const Projection& query = pass.projection(TensorRole::kQueryWeight);
  const Projection& key = pass.projection(TensorRole::kKeyWeight);
  const Projection& value = pass.projection(TensorRole::kValueWeight);
  const Projection& output = pass.projection(TensorRole::kOutputWeight);
  const Projection& up = pass.projection(TensorRole::kUpWeight);
  const Projection& down = pass.projection(TensorRole::kDownWeight);
  const Projection* const gate = gated ? &pass.projection(TensorRole::kGateWeight) : &up;
  const ProjectionForm projections[] = {query.form(), key.form(), value.form(), output.form(), gate->form(), up.form(), down.form()};
  const WorkSizes sizes(a, projections, samples, length);
  const std::size_t tiles = sizes.tiles;
  const std::size_t tile_tokens = sizes.tile_tokens;
  const std::size_t scratch_size = sizes.scratch;
  const std::size_t copies_size = sizes.copies;

  const std::size_t needed = WorkSpace(a, sizes, pool_.size(), collected, nullptr).bytes;
  if (work_space_.size() < needed) {
    // The smaller one goes first.
    work_space_ = {};
    work_space_ = Buffer<std::uint8_t>(budget_, needed, "the work space of a group");
  }
  const WorkSpace work(a, sizes, pool_.size(), collected, work_space_.data());
  const auto workspace_of = [&](std::size_t worker) {
    return ProjectionWorkspace(work.copies + worker * copies_size, projections, tile_tokens);
  };

  float* quality_inputs[kSites] = {};
  for (std::size_t index = 0; index < kSites; ++index) {
    const auto site = static_cast<InputSite>(index);
    if (!pass.sites.contains(site) || pass.dense) continue;
    const std::size_t values = samples * std::max<std::size_t>(1, sketches) * sizes.widths[index];
    pass.statistics.push_back({site, std::vector<double>(sizes.widths[index]), std::vector<float>(values)});
    quality_inputs[index] = pass.statistics.back().quality_inputs.data();
  }
  // Whether nothing behind the site is wanted.
  const auto ends_at = [&](InputSite site) { return pass.output == nullptr && pass.sites.end_at(site); };
  // `added_to`: the hidden states that the output of what reads x is added to, or null.
  const auto follow_drift = [&](InputSite site, std::size_t first, const float* x, const float* added_to, std::size_t count) {
    const auto index = static_cast<std::size_t>(site);
    if (pass.drift[index] == nullptr) return;
    const std::size_t rows = sizes.widths[index] + (added_to == nullptr ? 0 : hidden);
    const auto put = [&](const float* values, std::size_t width, std::size_t token, std::size_t offset) {
      float* const place = pass.drift[index] + (first + token) * rows + offset;
      for (std::size_t i = 0; i < width; ++i) place[i] = pass.dense ? values[i] : place[i] - values[i];
    };
    for (std::size_t token = 0; token < count; ++token) {
      put(x + token * sizes.widths[index], sizes.widths[index], token, 0);
      if (added_to != nullptr) put(added_to + token * hidden, hidden, token, sizes.widths[index]);
    }
  };
  const auto observe = [&](InputSite site, std::size_t sample, std::size_t tile, const float* x, std::size_t count) {
    if (!pass.sites.contains(site) || pass.dense) return;
    const auto index = static_cast<std::size_t>(site);
    const std::size_t width = sizes.widths[index];
    const auto values = static_cast<double>(count * width);
    const PhaseScope scope(context, "statistics", 2 * values * static_cast<double>(1 + sketches), sizeof(float) * values);
    double* sums = work.tile_sums[index] + (sample * tiles + tile) * width;
    std::fill(sums, sums + width, 0.0);
    for (std::size_t token = 0; token < count; ++token) vector_math().add_squares(x + token * width, width, sums);
    if (sketches > 0) {
      float signs[kMostSketches * kTokenTile];
      for (std::size_t sketch = 0; sketch < sketches; ++sketch) {
        fill_signs({.group = pass.group.tokens.index, .sample = sample, .sketch = sketch}, tile * kTokenTile,
                   {signs + sketch * count, count});
      }
      float* const part = work.tile_sketches[index] + (sample * tiles + tile) * sketches * width;
      std::fill(part, part + sketches * width, 0.0F);
      vector_math().add_signed(x, count, width, signs, sketches, part);
    } else if (tile + 1 == tiles) {
      std::memcpy(quality_inputs[index] + sample * width, x + (count - 1) * width, width * sizeof(float));
    }
    if (float* const inputs = work.gram_inputs[index]; inputs != nullptr) {
      std::copy_n(x, count * width, inputs + (sample * length + tile * kTokenTile) * width);
    }
  };
  // Adds the sums of the tiles, in order.
  const auto add_up = [&] {
    if (!collected) return;
    const PhaseScope scope(context, "statistics");
    for (SiteStatistics& statistics : pass.statistics) {
      const auto index = static_cast<std::size_t>(statistics.site);
      add_sketches(work.tile_sketches[index], {.samples = samples, .tiles = tiles, .sketches = sketches, .width = sizes.widths[index]},
                   length, statistics.quality_inputs);
      std::vector<double>& sums = statistics.sums_of_squares;
      for (std::size_t part = 0; part < samples * tiles; ++part) {
        const double* partial = work.tile_sums[index] + part * sizes.widths[index];
        for (std::size_t column = 0; column < sizes.widths[index]; ++column) sums[column] += partial[column];
      }
      for (const double sum : sums) {
        if (!std::isfinite(sum)) {
          throw Error(ErrorCode::kNonFinite, "The " + std::string(name_of(statistics.site)) + " has NaN or infinity in group " +
                                                 std::to_string(pass.group.tokens.index) + ".");
        }
      }
      if (const GramTarget& gram = pass.grams[index]; gram.sums != nullptr) {
        for (std::size_t sample = 0; sample < samples; ++sample) {
          const float* const inputs = work.gram_inputs[index] + sample * length * sizes.widths[index];
          (is_held_out(sample) ? gram.held_out : gram.sums)->add(inputs, inputs, 1, length, pool_, context);
        }
        if (gram.drift != nullptr) gram.drift->add(pass.drift[index], work.gram_inputs[index], samples, length, pool_, context);
      }
    }
  };

  const auto normalize_tile = [&](const float* x, TensorRole weight, TensorRole bias, std::size_t count, float* result) {
    const PhaseScope scope(context, "normalization", 4.0 * static_cast<double>(count * hidden), 8.0 * static_cast<double>(count * hidden));
    normalize(a, x, block.find(weight), block.find(bias), count, result);
  };
  // Each head of queries or keys by itself, where the block has a weight for it.
  const auto normalize_heads = [&](float* states, std::size_t heads, TensorRole role) {
    const float* const weight = block.find(role);
    if (weight == nullptr) return;
    const std::size_t size = a.head_dimension;
    const PhaseScope scope(context, "normalization", 4.0 * static_cast<double>(heads * size), 8.0 * static_cast<double>(heads * size));
    for (float* head = states; head != states + heads * size; head += size) {
      vector_math().rms_norm(head, weight, size, a.normalization_epsilon, head);
    }
  };

  // Stage 1, per tile of tokens: normalise, project to queries, keys and values, rotate.
  pool_.parallel_for(samples * tiles, [&](std::size_t item, std::size_t worker) {
    context.check();
    const std::size_t sample = item / tiles;
    const std::size_t tile = item % tiles;
    const std::size_t position = tile * kTokenTile;
    const std::size_t count = std::min(kTokenTile, length - position);
    const std::size_t first = sample * length + position;
    float* normed = work.scratch + worker * scratch_size;
    const float* x = pass.states().read(first * hidden, count * hidden, normed);
    if (!a.post_normalization) {
      normalize_tile(x, TensorRole::kAttentionNormWeight, TensorRole::kAttentionNormBias, count, normed);
      x = normed;
    }
    observe(InputSite::kAttentionInput, sample, tile, x, count);
    follow_drift(InputSite::kAttentionInput, first, x, nullptr, count);
    if (ends_at(InputSite::kAttentionInput)) return;
    float* q = work.queries + first * query_width;
    float* k = work.keys + first * key_width;
    const ProjectionWorkspace workspace = workspace_of(worker);
    const ProjectionInput input = workspace.prepare(x, count, hidden, {&query, &key, &value});
    query.multiply(input, block.find(TensorRole::kQueryBias), workspace, q, context);
    key.multiply(input, block.find(TensorRole::kKeyBias), workspace, k, context);
    value.multiply(input, block.find(TensorRole::kValueBias), workspace, work.values + first * key_width, context);
    normalize_heads(q, count * a.attention_heads, TensorRole::kQueryNormWeight);
    normalize_heads(k, count * a.key_value_heads, TensorRole::kKeyNormWeight);
    if (a.position_encoding != PositionEncoding::kRotary) return;
    const PhaseScope scope(context, "attention", 3.0 * static_cast<double>(count * (query_width + key_width)), 0);
    const std::size_t half = a.head_dimension / 2;
    for (std::size_t token = 0; token < count; ++token) {
      const float* cosines = cosines_.data() + (position + token) * half;
      const float* sines = sines_.data() + (position + token) * half;
      for (std::size_t head = 0; head < a.attention_heads; ++head) {
        vector_math().rotate(q + token * query_width + head * a.head_dimension, cosines, sines, a.head_dimension);
      }
      for (std::size_t head = 0; head < a.key_value_heads; ++head) {
        vector_math().rotate(k + token * key_width + head * a.head_dimension, cosines, sines, a.head_dimension);
      }
    }
  });

  if (ends_at(InputSite::kAttentionInput)) return add_up();

  // Stage 2, per sample and head: attention.
  const std::size_t heads_per_key = a.attention_heads / a.key_value_heads;
  const std::size_t window = block.attention_window() == 0 ? length : std::min(length, block.attention_window());
  pool_.parallel_for(samples * a.attention_heads, [&](std::size_t item, std::size_t worker) {
    context.check();
    const std::size_t sample = item / a.attention_heads;
    const std::size_t head = item % a.attention_heads;
    const std::size_t key_offset = sample * length * key_width + head / heads_per_key * a.head_dimension;
    const std::size_t query_offset = sample * length * query_width + head * a.head_dimension;
    const PhaseScope scope(context, "attention", attention_flops(length, a.head_dimension, window),
                           sizeof(float) * static_cast<double>(4 * length * a.head_dimension));
    attend({work.queries + query_offset, query_width, work.keys + key_offset, work.values + key_offset, key_width,
            work.attended + query_offset, query_width, a.head_dimension, window},
           length, sizes.attention, work.scratch + worker * scratch_size);
  });

  // Stage 3, per tile of tokens: output projection, residual, feed-forward half.
  pool_.parallel_for(samples * tiles, [&](std::size_t item, std::size_t worker) {
    context.check();
    const std::size_t sample = item / tiles;
    const std::size_t tile = item % tiles;
    const std::size_t position = tile * kTokenTile;
    const std::size_t count = std::min(kTokenTile, length - position);
    const std::size_t first = sample * length + position;
    float* residual = work.scratch + worker * scratch_size;
    float* normed = residual + tile_tokens * hidden;
    float* activated = normed + tile_tokens * hidden;
    float* raised = activated + (gated ? tile_tokens * intermediate : 0);

    const float* mixed = work.attended + first * query_width;
    const float* const entered = pass.states().read(first * hidden, count * hidden, normed);
    observe(InputSite::kAttentionOutput, sample, tile, mixed, count);
    follow_drift(InputSite::kAttentionOutput, first, mixed, entered, count);
    if (ends_at(InputSite::kAttentionOutput)) return;
    const ProjectionWorkspace workspace = workspace_of(worker);
    output.multiply(workspace.prepare(mixed, count, query_width, {&output}), block.find(TensorRole::kOutputBias), workspace, residual,
                    context);
    vector_math().add(residual, entered, count * hidden);
    if (a.post_normalization) {
      normalize_tile(residual, TensorRole::kAttentionNormWeight, TensorRole::kAttentionNormBias, count, normed);
    } else {
      normalize_tile(residual, TensorRole::kFeedForwardNormWeight, TensorRole::kFeedForwardNormBias, count, normed);
    }
    observe(InputSite::kFeedForwardInput, sample, tile, normed, count);
    follow_drift(InputSite::kFeedForwardInput, first, normed, nullptr, count);
    if (ends_at(InputSite::kFeedForwardInput)) return;
    const ProjectionInput raising = workspace.prepare(normed, count, hidden, {gate, &up});
    up.multiply(raising, block.find(TensorRole::kUpBias), workspace, raised, context);
    if (gated) gate->multiply(raising, block.find(TensorRole::kGateBias), workspace, activated, context);
    {
      const PhaseScope scope(context, "activation", 4.0 * static_cast<double>(count * intermediate),
                             12.0 * static_cast<double>(count * intermediate));
      if (gated) {
        vector_math().silu_multiply(activated, raised, count * intermediate);
      } else {
        vector_math().relu(activated, count * intermediate);
      }
    }
    // What the half began with is added: the normalised sum where normalisation comes after.
    const float* const half = a.post_normalization ? normed : residual;
    observe(InputSite::kFeedForwardHidden, sample, tile, activated, count);
    follow_drift(InputSite::kFeedForwardHidden, first, activated, half, count);
    if (ends_at(InputSite::kFeedForwardHidden)) return;
    float* const result = a.post_normalization ? residual : normed;
    down.multiply(workspace.prepare(activated, count, intermediate, {&down}), block.find(TensorRole::kDownBias), workspace, result,
                  context);
    vector_math().add(result, half, count * hidden);
    if (a.post_normalization) {
      normalize_tile(result, TensorRole::kFeedForwardNormWeight, TensorRole::kFeedForwardNormBias, count, result);
    }
    if (!vector_math().all_finite(result, count * hidden)) {
      throw Error(ErrorCode::kNonFinite, "The block gives NaN or infinity for sample " + std::to_string(sample) + " of group " +
                                             std::to_string(pass.group.tokens.index) + ".");
    }
    pass.output->write(first * hidden, count * hidden, result);
  });
  add_up();
}

}  // namespace secateur::cpu

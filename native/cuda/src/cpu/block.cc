#include "cpu/block.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/attention.h"
#include "cpu/vector_math.h"

namespace secateur::cpu {

namespace {

// Tokens of a work item: enough for the matrix products to run at full speed, few enough for many threads.
constexpr std::size_t kTokenTile = 256;
constexpr std::size_t kSites = 4;

}  // namespace

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
  float* output = nullptr;
  // Set when statistics are wanted.
  std::vector<SiteStatistics>* statistics = nullptr;

  std::size_t samples() const { return group.tokens.samples; }
  std::size_t length() const { return group.tokens.sequence_length; }
  std::size_t tiles() const { return (length() + kTokenTile - 1) / kTokenTile; }
};

BlockRunner::BlockRunner(const Architecture& architecture, MemoryBudget& budget, ThreadPool& pool)
    : architecture_(architecture), budget_(budget), pool_(pool) {}

std::vector<SiteStatistics> BlockRunner::collect(const Shard& block, const Group& group, CallContext& context) {
  std::vector<SiteStatistics> statistics;
  Pass pass{block, group, context, nullptr, &statistics};
  run(pass);
  return statistics;
}

void BlockRunner::propagate(const Shard& block, Group& group, CallContext& context) {
  Pass pass{block, group, context, group.hidden.data(), nullptr};
  run(pass);
}

void BlockRunner::make_rotary_tables(std::size_t sequence_length) {
  if (architecture_.position_encoding != PositionEncoding::kRotary || rotary_positions_ >= sequence_length) return;
  const std::size_t half = architecture_.head_dimension / 2;
  rotary_positions_ = 0;
  cosines_ = Buffer<float>(budget_, sequence_length * half, "cosines of the positions");
  sines_ = Buffer<float>(budget_, sequence_length * half, "sines of the positions");
  for (std::size_t position = 0; position < sequence_length; ++position) {
    for (std::size_t i = 0; i < half; ++i) {
      // Frequencies and angles in float32, as the published models compute them.
      const float exponent = static_cast<float>(2 * i) / static_cast<float>(architecture_.head_dimension);
      const float frequency = 1.0F / std::pow(static_cast<float>(architecture_.rotary_base), exponent);
      const float angle = static_cast<float>(position) * frequency;
      cosines_[position * half + i] = std::cos(angle);
      sines_[position * half + i] = std::sin(angle);
    }
  }
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
  const std::size_t tiles = pass.tiles();
  const std::size_t tokens = samples * length;
  const std::size_t tile_tokens = std::min(kTokenTile, length);
  const bool gated = a.feed_forward == FeedForward::kGatedSilu;
  const bool collecting = pass.statistics != nullptr;
  make_rotary_tables(length);

  const Projection& query = block.projection(TensorRole::kQueryWeight);
  const Projection& key = block.projection(TensorRole::kKeyWeight);
  const Projection& value = block.projection(TensorRole::kValueWeight);
  const Projection& output = block.projection(TensorRole::kOutputWeight);
  const Projection& up = block.projection(TensorRole::kUpWeight);
  const Projection& down = block.projection(TensorRole::kDownWeight);
  const Projection* const gate = gated ? &block.projection(TensorRole::kGateWeight) : &up;
  const Projection* const projections[] = {&query, &key, &value, &output, gate, &up, &down};

  Buffer<float> queries(budget_, tokens * query_width, "queries of a group");
  Buffer<float> keys(budget_, tokens * key_width, "keys of a group");
  Buffer<float> values(budget_, tokens * key_width, "values of a group");
  Buffer<float> attended(budget_, tokens * query_width, "attention of a group");
  const std::size_t tile_scratch = tile_tokens * (2 * hidden + (gated ? 2 : 1) * intermediate);
  const AttentionLayout attention = attention_layout(length, a.head_dimension);
  // Threads' parts begin on cache lines.
  constexpr std::size_t kLineFloats = 16;
  const std::size_t scratch_size = (std::max(tile_scratch, attention.total) + kLineFloats - 1) / kLineFloats * kLineFloats;
  Buffer<float> scratch(budget_, pool_.size() * scratch_size, "work space of the threads");
  const std::size_t copies_size = ProjectionWorkspace::bytes(projections, tile_tokens);
  Buffer<std::uint8_t> copies(budget_, pool_.size() * copies_size, "work space of the threads");
  const auto workspace_of = [&](std::size_t worker) {
    return ProjectionWorkspace(copies.data() + worker * copies_size, projections, tile_tokens);
  };

  // Per site: sums of squares of each tile, to be added in order, and the inputs of the last tokens.
  const std::size_t widths[kSites] = {hidden, query_width, hidden, intermediate};
  Buffer<double> tile_sums[kSites];
  if (collecting) {
    for (std::size_t site = 0; site < kSites; ++site) {
      tile_sums[site] = Buffer<double>(budget_, samples * tiles * widths[site], "statistics of a group");
      SiteStatistics statistics;
      statistics.site = static_cast<InputSite>(site);
      statistics.sums_of_squares.assign(widths[site], 0.0);
      statistics.last_inputs.resize(samples * widths[site]);
      pass.statistics->push_back(std::move(statistics));
    }
  }
  const auto observe = [&](InputSite site, std::size_t sample, std::size_t tile, const float* x, std::size_t count) {
    if (!collecting) return;
    const auto index = static_cast<std::size_t>(site);
    const std::size_t width = widths[index];
    const PhaseScope scope(context, "statistics", 2.0 * static_cast<double>(count * width),
                           sizeof(float) * static_cast<double>(count * width));
    double* sums = tile_sums[index].data() + (sample * tiles + tile) * width;
    std::fill(sums, sums + width, 0.0);
    for (std::size_t token = 0; token < count; ++token) vector_math().add_squares(x + token * width, width, sums);
    if (tile + 1 == tiles) {
      std::memcpy((*pass.statistics)[index].last_inputs.data() + sample * width, x + (count - 1) * width, width * sizeof(float));
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
    float* normed = scratch.data() + worker * scratch_size;
    {
      const PhaseScope scope(context, "normalization", 4.0 * static_cast<double>(count * hidden),
                             8.0 * static_cast<double>(count * hidden));
      normalize(a, pass.group.hidden.data() + first * hidden, block.find(TensorRole::kAttentionNormWeight),
                block.find(TensorRole::kAttentionNormBias), count, normed);
    }
    observe(InputSite::kAttentionInput, sample, tile, normed, count);
    float* q = queries.data() + first * query_width;
    float* k = keys.data() + first * key_width;
    const ProjectionWorkspace workspace = workspace_of(worker);
    const ProjectionInput input = workspace.prepare(normed, count, hidden, {&query, &key, &value});
    query.multiply(input, block.find(TensorRole::kQueryBias), workspace, q, context);
    key.multiply(input, block.find(TensorRole::kKeyBias), workspace, k, context);
    value.multiply(input, block.find(TensorRole::kValueBias), workspace, values.data() + first * key_width, context);
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

  // Stage 2, per sample and head: attention.
  const std::size_t heads_per_key = a.attention_heads / a.key_value_heads;
  pool_.parallel_for(samples * a.attention_heads, [&](std::size_t item, std::size_t worker) {
    context.check();
    const std::size_t sample = item / a.attention_heads;
    const std::size_t head = item % a.attention_heads;
    const std::size_t key_offset = sample * length * key_width + head / heads_per_key * a.head_dimension;
    const std::size_t query_offset = sample * length * query_width + head * a.head_dimension;
    const PhaseScope scope(context, "attention", attention_flops(length, a.head_dimension),
                           sizeof(float) * static_cast<double>(4 * length * a.head_dimension));
    attend({queries.data() + query_offset, query_width, keys.data() + key_offset, values.data() + key_offset, key_width,
            attended.data() + query_offset, query_width, a.head_dimension},
           length, attention, scratch.data() + worker * scratch_size);
  });

  // Stage 3, per tile of tokens: output projection, residual, feed-forward half.
  pool_.parallel_for(samples * tiles, [&](std::size_t item, std::size_t worker) {
    context.check();
    const std::size_t sample = item / tiles;
    const std::size_t tile = item % tiles;
    const std::size_t position = tile * kTokenTile;
    const std::size_t count = std::min(kTokenTile, length - position);
    const std::size_t first = sample * length + position;
    float* residual = scratch.data() + worker * scratch_size;
    float* normed = residual + tile_tokens * hidden;
    float* activated = normed + tile_tokens * hidden;
    float* raised = activated + (gated ? tile_tokens * intermediate : 0);

    const float* mixed = attended.data() + first * query_width;
    observe(InputSite::kAttentionOutput, sample, tile, mixed, count);
    const ProjectionWorkspace workspace = workspace_of(worker);
    output.multiply(workspace.prepare(mixed, count, query_width, {&output}), block.find(TensorRole::kOutputBias), workspace, residual,
                    context);
    vector_math().add(residual, pass.group.hidden.data() + first * hidden, count * hidden);
    {
      const PhaseScope scope(context, "normalization", 4.0 * static_cast<double>(count * hidden),
                             8.0 * static_cast<double>(count * hidden));
      normalize(a, residual, block.find(TensorRole::kFeedForwardNormWeight), block.find(TensorRole::kFeedForwardNormBias), count, normed);
    }
    observe(InputSite::kFeedForwardInput, sample, tile, normed, count);
    const ProjectionInput raising = workspace.prepare(normed, count, hidden, {gate, &up});
    up.multiply(raising, block.find(TensorRole::kUpBias), workspace, raised, context);
    if (gated) gate->multiply(raising, nullptr, workspace, activated, context);
    {
      const PhaseScope scope(context, "activation", 4.0 * static_cast<double>(count * intermediate),
                             12.0 * static_cast<double>(count * intermediate));
      if (gated) {
        vector_math().silu_multiply(activated, raised, count * intermediate);
      } else {
        vector_math().relu(activated, count * intermediate);
      }
    }
    observe(InputSite::kFeedForwardHidden, sample, tile, activated, count);
    if (pass.output == nullptr) return;
    down.multiply(workspace.prepare(activated, count, intermediate, {&down}), block.find(TensorRole::kDownBias), workspace, normed,
                  context);
    vector_math().add(normed, residual, count * hidden);
    if (!vector_math().all_finite(normed, count * hidden)) {
      throw Error(ErrorCode::kNonFinite, "The block gives NaN or infinity for sample " + std::to_string(sample) + " of group " +
                                             std::to_string(pass.group.tokens.index) + ".");
    }
    std::memcpy(pass.output + first * hidden, normed, count * hidden * sizeof(float));
  });

  if (!collecting) return;
  const PhaseScope scope(context, "statistics");
  for (std::size_t site = 0; site < kSites; ++site) {
    std::vector<double>& sums = (*pass.statistics)[site].sums_of_squares;
    for (std::size_t part = 0; part < samples * tiles; ++part) {
      const double* partial = tile_sums[site].data() + part * widths[site];
      for (std::size_t column = 0; column < widths[site]; ++column) sums[column] += partial[column];
    }
    for (const double sum : sums) {
      if (!std::isfinite(sum)) {
        throw Error(ErrorCode::kNonFinite, "The " + std::string(name_of(static_cast<InputSite>(site))) + " has NaN or infinity in group " +
                                               std::to_string(pass.group.tokens.index) + ".");
      }
    }
  }
}

}  // namespace secateur::cpu

#include "cuda/block_runner.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "common/rotary_tables.h"
#include "common/shard_layout.h"
#include "common/sketch_signs.h"
#include "cuda/kernels/attention.h"
#include "cuda/kernels/attention_narrow.h"
#include "cuda/kernels/column_sums.h"
#include "cuda/kernels/drift.h"
#include "cuda/kernels/elementwise.h"
#include "cuda/kernels/matrix_product_f32.h"
#include "cuda/kernels/matrix_product_narrow.h"
#include "cuda/kernels/normalization.h"
#include "cuda/kernels/product_sums.h"
#include "cuda/kernels/rotary.h"
#include "cuda/kernels/sketches.h"
#include "cuda/narrow_values.h"
#include "cuda/transfers.h"

namespace secateur::gpu {

namespace {

constexpr std::size_t kSites = 4;
// Of a tile: products of this many rows fill a device.
constexpr std::size_t kTileTokens = 4096;

double as_double(std::size_t value) { return static_cast<double>(value); }

std::size_t samples_per_tile(std::size_t samples, std::size_t sequence_length) {
  return std::clamp<std::size_t>(kTileTokens / sequence_length, 1, samples);
}

// The most tokens of a tile of a group of up to so many samples of up to that length. Shorter samples can take more than the longest:
// more of them fit a tile.
std::size_t most_tile_tokens(std::size_t samples, std::size_t longest) {
  std::size_t most = longest;
  for (std::size_t together = 2; together <= std::min(samples, kTileTokens); ++together)
    most = std::max(most, together * std::min(longest, kTileTokens / together));
  return most;
}

// Of the inputs at each site.
std::array<std::size_t, kSites> site_widths(const Architecture& a) {
  return {a.hidden_size, a.query_width(), a.hidden_size, a.intermediate_size};
}

static_assert(kMostSketches <= kSketchesTogether, "all sketches are made at once");

std::size_t sign_words(std::size_t sequence_length) { return (sequence_length + kSignsTogether - 1) / kSignsTogether; }

// [samples, sketches, words], as sketch_inputs takes them.
std::vector<std::uint64_t> signs_of(const GroupTokens& group, std::size_t sketches) {
  const std::size_t words = sign_words(group.sequence_length);
  std::vector<std::uint64_t> signs;
  signs.reserve(group.samples * sketches * words);
  for (std::size_t sample = 0; sample < group.samples; ++sample) {
    for (std::size_t sketch = 0; sketch < sketches; ++sketch) {
      for (std::size_t word = 0; word < words; ++word) {
        signs.push_back(sketch_signs({.group = group.index, .sample = sample, .sketch = sketch}, word));
      }
    }
  }
  return signs;
}

// Floats of a tile's work space.
std::size_t work_space_size(const Architecture& a, std::size_t tokens) {
  return tokens * (2 * a.hidden_size + 2 * a.query_width() + 2 * a.key_width() + 2 * a.intermediate_size);
}

// Inputs of products of a tile, where they are narrowed: of a projection, or keys and values.
std::size_t narrowed_size(const Architecture& a, std::size_t tokens) {
  return tokens * std::max({a.hidden_size, a.query_width(), 2 * a.key_width(), a.intermediate_size, a.embedding_size});
}

}  // namespace

std::uint64_t BlockRunner::work_bytes(const Architecture& a, Compute compute, std::size_t samples, std::size_t sequence_length) {
  const std::size_t tokens = most_tile_tokens(samples, sequence_length);
  std::uint64_t bytes = block_bytes<float>(work_space_size(a, tokens)) + block_bytes<unsigned>(1);
  if (is_narrow(compute)) bytes += block_bytes<std::uint16_t>(narrowed_size(a, tokens));
  if (a.position_encoding == PositionEncoding::kRotary) bytes += 2 * block_bytes<float>(sequence_length * (a.head_dimension / 2));
  return bytes;
}

std::uint64_t BlockRunner::statistics_bytes(const Architecture& a, std::size_t samples, std::size_t sketches) {
  const std::size_t inputs = samples * std::max<std::size_t>(1, sketches);
  std::uint64_t bytes = 0;
  for (const std::size_t width : site_widths(a)) bytes += block_bytes<double>(samples * width) + block_bytes<float>(inputs * width);
  return bytes;
}

std::uint64_t BlockRunner::sign_bytes(std::size_t samples, std::size_t sequence_length, std::size_t sketches) {
  return block_bytes<std::uint64_t>(samples * sketches * sign_words(sequence_length));
}

std::uint64_t BlockRunner::drift_bytes(const Architecture& a, std::size_t samples, std::size_t sequence_length, InputSites sites) {
  const std::size_t tokens = most_tile_tokens(samples, sequence_length);
  std::uint64_t bytes = 0;
  for (std::size_t site = 0; site < kSites; ++site) {
    if (sites.contains(static_cast<InputSite>(site)))
      bytes += block_bytes<float>(tokens * drift_shape(a, static_cast<InputSite>(site)).rows);
  }
  return bytes;
}

struct BlockRunner::Tile {
  const DeviceGroup& group;
  std::size_t first_sample;
  std::size_t samples;
  // In the group's own hidden states when the output is wanted, else null.
  float* output;
  // Statistics are wanted of these; without an output the block runs to the last of them.
  InputSites sites = {};
  // Per site: sums of squares [samples of the group, width] and last inputs [samples of the group, width], or sketches [samples of the
  // group, sketches, width] where there are some; null when not wanted.
  double* sums[kSites] = {};
  float* quality_inputs[kSites] = {};
  std::size_t sketches = 0;
  // Of all samples of the group.
  const std::uint64_t* signs = nullptr;
  // What inputs of wanted sites are added to.
  GramTargets grams = {};
  // Per site, where the drift is wanted: of the tile [tokens, rows of the drift]. What the dense model has is put there, what the pruned
  // one has is taken off.
  float* drift[kSites] = {};
  // The hidden states of the dense model pass through the block as it was loaded; nothing is collected.
  bool dense = false;

  std::size_t length() const { return group.tokens.sequence_length; }
  std::size_t tokens() const { return samples * length(); }
  // Whether nothing behind the site is wanted.
  bool ends_at(InputSite site) const { return output == nullptr && sites.end_at(site); }
};

BlockRunner::BlockRunner(const Architecture& architecture, Compute compute, SessionMemory& memory, MatrixLibrary& products,
                         const Stream& stream, Timeline& timeline)
    : architecture_(architecture), compute_(compute), memory_(memory), products_(products), stream_(stream), timeline_(timeline) {}

void BlockRunner::reserve(std::size_t samples, std::size_t sequence_length) {
  make_rotary_tables(sequence_length);
  reserve_workspace(most_tile_tokens(samples, sequence_length));
}

void BlockRunner::make_rotary_tables(std::size_t sequence_length) {
  if (architecture_.position_encoding != PositionEncoding::kRotary || rotary_positions_ >= sequence_length) return;
  const std::size_t half = architecture_.head_dimension / 2;
  std::vector<float> cosines(sequence_length * half);
  std::vector<float> sines(sequence_length * half);
  fill_rotary_tables(architecture_, sequence_length, cosines.data(), sines.data());
  rotary_positions_ = 0;
  cosines_ = DeviceBuffer<float>(memory_, cosines.size(), "cosines of the positions");
  sines_ = DeviceBuffer<float>(memory_, sines.size(), "sines of the positions");
  upload(cosines, cosines_.data(), stream_, "uploading positions");
  upload(sines, sines_.data(), stream_, "uploading positions");
  rotary_positions_ = sequence_length;
}

void BlockRunner::reserve_narrowed(std::size_t values) {
  if (!is_narrow(compute_) || narrowed_.size() >= values) return;
  narrowed_ = {};
  narrowed_ = DeviceBuffer<std::uint16_t>(memory_, values, "inputs of products");
}

void BlockRunner::reserve_workspace(std::size_t tokens) {
  const std::size_t size = work_space_size(architecture_, tokens);
  if (workspace_.size() < size) {
    // The smaller one goes first.
    workspace_ = {};
    workspace_ = DeviceBuffer<float>(memory_, size, "the work space of a block");
  }
  reserve_narrowed(narrowed_size(architecture_, tokens));
  if (flag_.empty()) flag_ = DeviceBuffer<unsigned>(memory_, 1, "a flag");
}

void BlockRunner::start_product(const DeviceMatrix& matrix, std::size_t first, std::size_t count, const float* bias, const float* input,
                                std::size_t tokens, float* result) {
  timeline_.begin(
      "gemm", 2 * as_double(tokens) * as_double(count) * as_double(matrix.columns),
      (is_narrow(compute_) ? 2.0 : 4.0) * as_double(matrix.columns) * as_double(tokens + count) + 4.0 * as_double(tokens * count));
  const std::size_t offset = first * matrix.columns;
  if (is_narrow(compute_)) {
    check(narrow(compute_, input, narrowed_.data(), tokens * matrix.columns, stream_.get()), "narrowing activations");
    const std::uint16_t* const weights = matrix.narrowed.data() + offset;
    const auto product = [&]<class Narrow>(const Narrow* weight) {
      const auto* const narrowed = reinterpret_cast<const Narrow*>(narrowed_.data());
      return products_.multiply(MatrixProductNarrow<Narrow>{tokens, count, matrix.columns, narrowed, weight, bias, result}, stream_.get());
    };
    check(visit_narrow(compute_, weights, product), "a matrix product");
  } else {
    check(products_.multiply(MatrixProductF32{tokens, count, matrix.columns, input, matrix.values.data() + offset, bias, result},
                             stream_.get()),
          "a matrix product");
  }
}

void BlockRunner::multiply(const DeviceMatrix& matrix, const float* bias, const float* input, std::size_t tokens, float* result) {
  start_product(matrix, 0, matrix.rows, bias, input, tokens, result);
}

void BlockRunner::multiply_rows(const DeviceMatrix& matrix, std::size_t first, std::size_t count, const float* input, std::size_t tokens,
                                float* result) {
  start_product(matrix, first, count, nullptr, input, tokens, result);
}

void BlockRunner::normalize_heads(std::size_t heads, const float* weight, float* states) {
  if (weight == nullptr) return;
  const std::size_t size = architecture_.head_dimension;
  timeline_.begin("normalization", 4 * as_double(heads * size), 8 * as_double(heads * size));
  check(rms_norm({heads, size, architecture_.normalization_epsilon, states, weight, nullptr, states}, stream_.get()),
        "normalisation of heads");
}

void BlockRunner::normalize(std::size_t tokens, const float* input, const float* weight, const float* bias, float* output) {
  const std::size_t size = architecture_.hidden_size;
  timeline_.begin("normalization", 4 * as_double(tokens * size), 8 * as_double(tokens * size));
  const NormalizationTask task{tokens, size, architecture_.normalization_epsilon, input, weight, bias, output};
  check(architecture_.normalization == Normalization::kRms ? rms_norm(task, stream_.get()) : layer_norm(task, stream_.get()),
        "normalisation");
}

void BlockRunner::observe(const Tile& tile, InputSite site, const float* input) {
  const auto index = static_cast<std::size_t>(site);
  if (!tile.sites.contains(site) || tile.dense) return;
  const std::size_t width = site_widths(architecture_)[index];
  const double values = as_double(tile.tokens() * width);
  timeline_.begin("statistics", 2 * values * as_double(1 + tile.sketches), 4 * values * (tile.sketches == 0 ? 1 : 2));
  check(column_sums_of_squares({tile.samples, tile.length(), width, input, tile.sums[index] + tile.first_sample * width}, stream_.get()),
        "sums of squares");
  if (tile.sketches == 0) {
    check(gather_last(input, tile.samples, tile.length(), width, tile.quality_inputs[index] + tile.first_sample * width, stream_.get()),
          "gathering the last tokens");
    return;
  }
  const std::size_t sketch = tile.first_sample * tile.sketches;
  check(sketch_inputs({tile.samples, tile.length(), width, tile.sketches, 1 / std::sqrt(as_double(tile.length())), input,
                       tile.signs + sketch * sign_words(tile.length()), tile.quality_inputs[index] + sketch * width},
                      stream_.get()),
        "sketching inputs");
}

void BlockRunner::add_to_grams(const Tile& tile, InputSite site, const float* input, const float* added_to) {
  const auto index = static_cast<std::size_t>(site);
  const std::size_t width = site_widths(architecture_)[index];
  const GramTarget& gram = tile.grams[index];
  float* const drift = tile.drift[index];
  const ProductShape shape = drift_shape(architecture_, site);
  if (drift != nullptr) {
    timeline_.begin("gram", as_double(tile.tokens() * shape.rows), 12 * as_double(tile.tokens() * shape.rows));
    const auto follow = tile.dense ? begin_drift : finish_drift;
    check(follow({tile.tokens(), input, width, drift, shape.rows, 0}, stream_.get()), "the drift of inputs");
    if (added_to != nullptr) {
      check(follow({tile.tokens(), added_to, architecture_.hidden_size, drift, shape.rows, width}, stream_.get()),
            "the drift of hidden states");
    }
  }
  if (gram.sums == nullptr) return;
  timeline_.begin("gram", as_double(tile.tokens()) * as_double(width * width), 4 * as_double(tile.tokens() * width));
  const std::size_t length = tile.length();
  for (std::size_t sample = 0; sample < tile.samples; ++sample) {
    const float* const x = input + sample * length * width;
    double* const sums = is_held_out(tile.first_sample + sample) ? gram.held_out : gram.sums;
    check(add_product_sums({length, gram_shape(width), x, x, sums}, stream_.get()), "a Gram matrix");
    if (drift == nullptr) continue;
    check(add_product_sums({length, shape, drift + sample * length * shape.rows, x, gram.drift}, stream_.get()), "the sums of a drift");
  }
}

void BlockRunner::run_tile(DeviceShard& block, const Tile& tile, CallContext& context) {
  context.check();
  const Architecture& a = architecture_;
  const std::size_t tokens = tile.tokens();
  const std::size_t hidden = a.hidden_size;
  const bool gated = a.feed_forward == FeedForward::kGatedSilu;
  float* const normed = workspace_.data();
  float* const residual = normed + tokens * hidden;
  float* const queries = residual + tokens * hidden;
  float* const attended = queries + tokens * a.query_width();
  float* const keys = attended + tokens * a.query_width();
  float* const values = keys + tokens * a.key_width();
  float* const raised = values + tokens * a.key_width();
  float* const activated = gated ? raised + tokens * a.intermediate_size : raised;
  const float* const input = tile.group.hidden + tile.first_sample * tile.length() * hidden;

  const auto matrix = [&](TensorRole role) -> const DeviceMatrix& { return tile.dense ? block.dense_matrix(role) : block.matrix(role); };
  const auto normalize_for = [&](TensorRole weight, TensorRole bias, const float* from, float* to) {
    normalize(tokens, from, block.find(weight), block.find(bias), to);
  };
  if (!a.post_normalization) normalize_for(TensorRole::kAttentionNormWeight, TensorRole::kAttentionNormBias, input, normed);
  const float* const attention_input = a.post_normalization ? input : normed;
  observe(tile, InputSite::kAttentionInput, attention_input);
  add_to_grams(tile, InputSite::kAttentionInput, attention_input, nullptr);
  if (tile.ends_at(InputSite::kAttentionInput)) return;
  multiply(matrix(TensorRole::kQueryWeight), block.find(TensorRole::kQueryBias), attention_input, tokens, queries);
  multiply(matrix(TensorRole::kKeyWeight), block.find(TensorRole::kKeyBias), attention_input, tokens, keys);
  multiply(matrix(TensorRole::kValueWeight), block.find(TensorRole::kValueBias), attention_input, tokens, values);
  normalize_heads(tokens * a.attention_heads, block.find(TensorRole::kQueryNormWeight), queries);
  normalize_heads(tokens * a.key_value_heads, block.find(TensorRole::kKeyNormWeight), keys);
  context.check();
  timeline_.begin("attention", 2 * as_double(tokens) * as_double(tile.length()) * as_double(a.query_width()),
                  8 * as_double(tokens) * as_double(a.query_width() + a.key_width()));
  if (a.position_encoding == PositionEncoding::kRotary) {
    RotaryTask rotary{tokens, tile.length(), a.attention_heads, a.head_dimension, cosines_.data(), sines_.data(), queries};
    check(rotate(rotary, stream_.get()), "rotating queries");
    rotary.heads = a.key_value_heads;
    rotary.states = keys;
    check(rotate(rotary, stream_.get()), "rotating keys");
  }
  if (is_narrow(compute_)) {
    // Values lie behind the keys.
    const std::size_t size = tokens * a.key_width();
    check(narrow(compute_, keys, narrowed_.data(), 2 * size, stream_.get()), "narrowing keys and values");
    const std::uint16_t* const keys_and_values = narrowed_.data();
    const auto attend_to = [&]<class Narrow>(const Narrow* narrowed) {
      return attend_narrow(AttentionTask<Narrow>{tile.samples, tile.length(), a.attention_heads, a.key_value_heads, a.head_dimension,
                                                 queries, narrowed, narrowed + size, attended, block.attention_window()},
                           stream_.get());
    };
    check(visit_narrow(compute_, keys_and_values, attend_to), "attention");
  } else {
    check(attend({tile.samples, tile.length(), a.attention_heads, a.key_value_heads, a.head_dimension, queries, keys, values, attended,
                  block.attention_window()},
                 stream_.get()),
          "attention");
  }
  observe(tile, InputSite::kAttentionOutput, attended);
  add_to_grams(tile, InputSite::kAttentionOutput, attended, input);
  if (tile.ends_at(InputSite::kAttentionOutput)) return;
  multiply(matrix(TensorRole::kOutputWeight), block.find(TensorRole::kOutputBias), attended, tokens, residual);
  timeline_.begin("activation", as_double(tokens * hidden), 12 * as_double(tokens * hidden));
  check(add(residual, input, tokens * hidden, stream_.get()), "adding the residual");
  if (a.post_normalization) {
    normalize_for(TensorRole::kAttentionNormWeight, TensorRole::kAttentionNormBias, residual, normed);
  } else {
    normalize_for(TensorRole::kFeedForwardNormWeight, TensorRole::kFeedForwardNormBias, residual, normed);
  }
  observe(tile, InputSite::kFeedForwardInput, normed);
  add_to_grams(tile, InputSite::kFeedForwardInput, normed, nullptr);
  if (tile.ends_at(InputSite::kFeedForwardInput)) return;
  context.check();
  multiply(matrix(TensorRole::kUpWeight), block.find(TensorRole::kUpBias), normed, tokens, raised);
  if (gated) multiply(matrix(TensorRole::kGateWeight), block.find(TensorRole::kGateBias), normed, tokens, activated);
  const std::size_t activations = tokens * a.intermediate_size;
  timeline_.begin("activation", 4 * as_double(activations), 12 * as_double(activations));
  check(gated ? silu_multiply(activated, raised, activations, stream_.get()) : relu(activated, activations, stream_.get()), "activation");
  // What the half began with is added: the normalised sum where normalisation comes after.
  const float* const half = a.post_normalization ? normed : residual;
  observe(tile, InputSite::kFeedForwardHidden, activated);
  add_to_grams(tile, InputSite::kFeedForwardHidden, activated, half);
  if (tile.ends_at(InputSite::kFeedForwardHidden)) return;
  context.check();
  float* const result = a.post_normalization ? residual : normed;
  multiply(matrix(TensorRole::kDownWeight), block.find(TensorRole::kDownBias), activated, tokens, result);
  timeline_.begin("activation", as_double(tokens * hidden), 16 * as_double(tokens * hidden));
  check(add(result, half, tokens * hidden, stream_.get()), "adding the residual");
  if (a.post_normalization) normalize_for(TensorRole::kFeedForwardNormWeight, TensorRole::kFeedForwardNormBias, result, result);
  check(flag_non_finite(result, tokens * hidden, flag_.data(), stream_.get()), "looking for NaN");
  check(cudaMemcpyAsync(tile.output, result, tokens * hidden * sizeof(float), cudaMemcpyDeviceToDevice, stream_.get()),
        "storing hidden states");
}

std::vector<SiteStatistics> BlockRunner::collect(DeviceShard& block, const DeviceGroup& group, InputSites sites, std::size_t sketches,
                                                 const GramTargets& grams, float* dense, CallContext& context) {
  const std::array<std::size_t, kSites> widths = site_widths(architecture_);
  const std::size_t samples = group.tokens.samples;
  const std::size_t step = samples_per_tile(samples, group.tokens.sequence_length);
  reserve(samples, group.tokens.sequence_length);
  const std::size_t inputs = samples * std::max<std::size_t>(1, sketches);
  DeviceBuffer<double> sums[kSites];
  DeviceBuffer<float> quality_inputs[kSites];
  std::vector<std::size_t> wanted;
  for (std::size_t site = 0; site < kSites; ++site) {
    if (sites.contains(static_cast<InputSite>(site))) wanted.push_back(site);
  }
  for (const std::size_t site : wanted) {
    sums[site] = DeviceBuffer<double>(memory_, samples * widths[site], "statistics of a group");
    quality_inputs[site] = DeviceBuffer<float>(memory_, inputs * widths[site], "statistics of a group");
  }
  const std::vector<std::uint64_t> signs_on_host = signs_of(group.tokens, sketches);
  DeviceBuffer<std::uint64_t> signs(memory_, signs_on_host.size(), "signs of sketches");
  upload({signs_on_host.data(), signs.size()}, signs.data(), stream_, "uploading the signs of sketches");
  DeviceBuffer<float> drift[kSites];
  InputSites drifting = {};
  for (std::size_t site = 0; site < kSites; ++site) {
    if (grams[site].drift == nullptr) continue;
    drifting.add(static_cast<InputSite>(site));
    const std::size_t rows = drift_shape(architecture_, static_cast<InputSite>(site)).rows;
    drift[site] = DeviceBuffer<float>(memory_, step * group.tokens.sequence_length * rows, "the drift of a group");
  }
  block.ready().hold(stream_);
  for (std::size_t first = 0; first < samples; first += step) {
    Tile tile{group, first, std::min(step, samples - first), nullptr, sites, {}, {}, sketches, signs.data(), grams, {}, false};
    for (std::size_t site = 0; site < kSites; ++site) tile.drift[site] = drift[site].data();
    if (!drifting.empty()) {
      const DeviceGroup dense_group{group.tokens, dense};
      Tile dense_tile{dense_group, first, tile.samples, nullptr, drifting, {}, {}, 0, nullptr, {}, {}, true};
      std::ranges::copy(tile.drift, dense_tile.drift);
      run_tile(block, dense_tile, context);
    }
    for (const std::size_t site : wanted) {
      tile.sums[site] = sums[site].data();
      tile.quality_inputs[site] = quality_inputs[site].data();
    }
    run_tile(block, tile, context);
  }
  timeline_.begin("statistics", 0, 0);
  std::vector<PinnedBuffer<double>> sums_on_host;
  std::vector<PinnedBuffer<float>> inputs_on_host;
  for (const std::size_t site : wanted) {
    sums_on_host.emplace_back(memory_, samples * widths[site], "statistics of a group");
    inputs_on_host.emplace_back(memory_, inputs * widths[site], "statistics of a group");
    download(sums[site].data(), {sums_on_host.back().data(), sums[site].size()}, stream_, "reading statistics");
    download(quality_inputs[site].data(), {inputs_on_host.back().data(), quality_inputs[site].size()}, stream_, "reading statistics");
  }
  timeline_.finish(context, "Collecting statistics");
  std::vector<SiteStatistics> statistics(wanted.size());
  for (std::size_t place = 0; place < wanted.size(); ++place) {
    const std::size_t width = widths[wanted[place]];
    SiteStatistics& of_site = statistics[place];
    of_site.site = static_cast<InputSite>(wanted[place]);
    of_site.sums_of_squares.assign(width, 0.0);
    of_site.quality_inputs.assign(inputs_on_host[place].data(), inputs_on_host[place].data() + inputs_on_host[place].size());
    for (std::size_t sample = 0; sample < samples; ++sample) {
      for (std::size_t column = 0; column < width; ++column) {
        of_site.sums_of_squares[column] += sums_on_host[place].data()[sample * width + column];
      }
    }
    for (const double sum : of_site.sums_of_squares) {
      if (!std::isfinite(sum)) {
        throw Error(ErrorCode::kNonFinite, "The " + std::string(name_of(of_site.site)) + " has NaN or infinity in group " +
                                               std::to_string(group.tokens.index) + "." + overflow_hint(compute_));
      }
    }
  }
  return statistics;
}

void BlockRunner::propagate(DeviceShard& block, const DeviceGroup& group, bool dense, CallContext& context) {
  run_into(block, group, group.hidden, dense, context);
}

void BlockRunner::run_into(DeviceShard& block, const DeviceGroup& group, float* output, bool dense, CallContext& context) {
  const std::size_t samples = group.tokens.samples;
  const std::size_t step = samples_per_tile(samples, group.tokens.sequence_length);
  reserve(samples, group.tokens.sequence_length);
  PinnedBuffer<unsigned> flag(memory_, 1, "a flag");
  check(cudaMemsetAsync(flag_.data(), 0, sizeof(unsigned), stream_.get()), "clearing a flag");
  block.ready().hold(stream_);
  for (std::size_t first = 0; first < samples; first += step) {
    float* const of_tile = output + first * group.tokens.sequence_length * architecture_.hidden_size;
    run_tile(block, {group, first, std::min(step, samples - first), of_tile, {}, {}, {}, 0, nullptr, {}, {}, dense}, context);
  }
  download(flag_.data(), {flag.data(), flag.size()}, stream_, "reading a flag");
  timeline_.finish(context, "Propagating hidden states");
  if (*flag.data() != 0) {
    throw Error(ErrorCode::kNonFinite, "The block gives NaN or infinity for a sample of group " + std::to_string(group.tokens.index) + "." +
                                           overflow_hint(compute_));
  }
}

}  // namespace secateur::gpu

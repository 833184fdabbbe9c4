#include "common/shard_layout.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

namespace secateur {

namespace {

// Far above any model. Every dimension of a tensor obeys it, so that no count of elements or bytes overflows.
constexpr std::size_t kMaximumSize = std::size_t{1} << 24;

// Values of hidden states; so that no sum of bytes overflows.
constexpr double kMaximumStates = 1e15;

void check_size(std::size_t size, const char* field) {
  if (size == 0 || size > kMaximumSize) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string(field) + " must be from 1 to " + std::to_string(kMaximumSize) + ", not " + std::to_string(size) + ".");
  }
}

std::string describe(std::span<const std::size_t> shape) {
  std::string text = "[";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) text += (axis == 0 ? "" : ", ") + std::to_string(shape[axis]);
  return text + "]";
}

std::vector<std::size_t> expected_shape(TensorRole role, const Architecture& a) {
  switch (role) {
    case TensorRole::kTokenEmbedding:
    case TensorRole::kHeadWeight:
      return {a.vocabulary_size, a.token_width()};
    case TensorRole::kEmbeddingProjectionWeight:
      return {a.hidden_size, a.embedding_size};
    case TensorRole::kHeadProjectionWeight:
      return {a.embedding_size, a.hidden_size};
    case TensorRole::kPositionEmbedding:
      return {a.maximum_positions + a.learned_position_offset, a.hidden_size};
    case TensorRole::kQueryWeight:
      return {a.query_width(), a.hidden_size};
    case TensorRole::kQueryBias:
      return {a.query_width()};
    case TensorRole::kKeyWeight:
    case TensorRole::kValueWeight:
      return {a.key_width(), a.hidden_size};
    case TensorRole::kKeyBias:
    case TensorRole::kValueBias:
      return {a.key_width()};
    case TensorRole::kOutputWeight:
      return {a.hidden_size, a.query_width()};
    case TensorRole::kGateWeight:
    case TensorRole::kUpWeight:
      return {a.intermediate_size, a.hidden_size};
    case TensorRole::kGateBias:
    case TensorRole::kUpBias:
      return {a.intermediate_size};
    case TensorRole::kQueryNormWeight:
    case TensorRole::kKeyNormWeight:
      return {a.head_dimension};
    case TensorRole::kDownWeight:
      return {a.hidden_size, a.intermediate_size};
    case TensorRole::kAttentionNormWeight:
    case TensorRole::kAttentionNormBias:
    case TensorRole::kOutputBias:
    case TensorRole::kFeedForwardNormWeight:
    case TensorRole::kFeedForwardNormBias:
    case TensorRole::kDownBias:
    case TensorRole::kFinalNormWeight:
    case TensorRole::kFinalNormBias:
      return {a.hidden_size};
  }
  throw Error(ErrorCode::kInvalidArgument, "An unknown tensor role.");
}

std::vector<TensorRole> required_roles(ShardKind kind, const Architecture& architecture) {
  const bool layer = architecture.normalization == Normalization::kLayer;
  std::vector<TensorRole> roles;
  switch (kind) {
    case ShardKind::kEmbedding:
      roles = {TensorRole::kTokenEmbedding};
      if (architecture.position_encoding == PositionEncoding::kLearned) roles.push_back(TensorRole::kPositionEmbedding);
      if (architecture.embedding_size > 0) roles.push_back(TensorRole::kEmbeddingProjectionWeight);
      return roles;
    case ShardKind::kBlock:
      roles = {TensorRole::kAttentionNormWeight, TensorRole::kQueryWeight,           TensorRole::kKeyWeight, TensorRole::kValueWeight,
               TensorRole::kOutputWeight,        TensorRole::kFeedForwardNormWeight, TensorRole::kUpWeight,  TensorRole::kDownWeight};
      if (architecture.feed_forward == FeedForward::kGatedSilu) roles.push_back(TensorRole::kGateWeight);
      if (layer) roles.insert(roles.end(), {TensorRole::kAttentionNormBias, TensorRole::kFeedForwardNormBias});
      return roles;
    case ShardKind::kHead:
      roles = {TensorRole::kHeadWeight};
      if (architecture.final_normalization) {
        roles.push_back(TensorRole::kFinalNormWeight);
        if (layer) roles.push_back(TensorRole::kFinalNormBias);
      }
      if (architecture.embedding_size > 0) roles.push_back(TensorRole::kHeadProjectionWeight);
      return roles;
  }
  return roles;
}

bool is_optional(TensorRole role, const Architecture& architecture) {
  switch (role) {
    case TensorRole::kGateBias:
      return architecture.feed_forward == FeedForward::kGatedSilu;
    case TensorRole::kQueryNormWeight:
    case TensorRole::kKeyNormWeight:
    case TensorRole::kQueryBias:
    case TensorRole::kKeyBias:
    case TensorRole::kValueBias:
    case TensorRole::kOutputBias:
    case TensorRole::kUpBias:
    case TensorRole::kDownBias:
      return true;
    default:
      return false;
  }
}

ShardKind kind_of(const std::string& name, std::span<const TensorLayout> tensors) {
  for (const TensorLayout& tensor : tensors) {
    if (tensor.role == TensorRole::kTokenEmbedding) return ShardKind::kEmbedding;
    if (tensor.role == TensorRole::kHeadWeight) return ShardKind::kHead;
    if (tensor.role == TensorRole::kQueryWeight) return ShardKind::kBlock;
  }
  throw Error(ErrorCode::kInvalidArgument, "Shard " + name + " has neither a token embedding nor a query projection nor a head.");
}

void check_shape(const std::string& shard, const TensorLayout& tensor, const Architecture& architecture) {
  const std::vector<std::size_t> expected = expected_shape(tensor.role, architecture);
  if (tensor.shape != expected) {
    throw Error(ErrorCode::kInvalidArgument, "Shard " + shard + ": " + name_of(tensor.role) + " has the shape " + describe(tensor.shape) +
                                                 "; the architecture asks for " + describe(expected) + ".");
  }
}

void check_rotary_scaling(const Architecture& a) {
  const auto is_positive = [](double value) { return value > 0 && std::isfinite(value); };
  if (a.rotary_scaling != RotaryScaling::kNone && !is_positive(a.rotary_factor)) {
    throw Error(ErrorCode::kInvalidArgument, "The factor of rotaryScaling must be finite and above 0.");
  }
  if (a.rotary_scaling != RotaryScaling::kLlama3) return;
  if (!is_positive(a.low_frequency_factor) || !is_positive(a.original_positions) || !std::isfinite(a.high_frequency_factor) ||
      a.high_frequency_factor <= a.low_frequency_factor) {
    throw Error(ErrorCode::kInvalidArgument,
                "rotaryScaling llama3 needs originalPositions and lowFrequencyFactor above 0, and highFrequencyFactor above that.");
  }
}

void check_bytes(const std::string& shard, const TensorView& tensor) {
  const std::size_t expected = elements_of(tensor) * bytes_of(tensor.element_type);
  if (tensor.bytes.size() == expected) return;
  throw Error(ErrorCode::kInvalidArgument, "Shard " + shard + ": " + name_of(tensor.role) + " has " + std::to_string(tensor.bytes.size()) +
                                               " bytes; its shape and type ask for " + std::to_string(expected) + ".");
}

}  // namespace

const char* name_of(ShardKind kind) {
  switch (kind) {
    case ShardKind::kEmbedding:
      return "an embedding";
    case ShardKind::kBlock:
      return "a block";
    case ShardKind::kHead:
      return "a head";
  }
  return "a shard";
}

bool is_multiplied(TensorRole role) {
  switch (role) {
    case TensorRole::kQueryWeight:
    case TensorRole::kKeyWeight:
    case TensorRole::kValueWeight:
    case TensorRole::kOutputWeight:
    case TensorRole::kGateWeight:
    case TensorRole::kUpWeight:
    case TensorRole::kDownWeight:
    case TensorRole::kHeadWeight:
    case TensorRole::kEmbeddingProjectionWeight:
    case TensorRole::kHeadProjectionWeight:
      return true;
    default:
      return false;
  }
}

std::size_t input_width(const Architecture& architecture, InputSite site) {
  if (site == InputSite::kAttentionOutput) return architecture.query_width();
  return site == InputSite::kFeedForwardHidden ? architecture.intermediate_size : architecture.hidden_size;
}

ProductShape drift_shape(const Architecture& architecture, InputSite site) {
  const std::size_t width = input_width(architecture, site);
  const bool added = site == InputSite::kAttentionOutput || site == InputSite::kFeedForwardHidden;
  return {width + (added ? architecture.hidden_size : 0), width};
}

std::size_t elements_of(const TensorLayout& tensor) {
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(), std::size_t{1}, std::multiplies<>());
}

ShardKind check_layout(const std::string& name, std::span<const TensorLayout> tensors, const Architecture& architecture) {
  const ShardKind kind = kind_of(name, tensors);
  const std::vector<TensorRole> required = required_roles(kind, architecture);
  std::vector<TensorRole> seen;
  for (const TensorLayout& tensor : tensors) {
    const bool expected = std::find(required.begin(), required.end(), tensor.role) != required.end();
    if (!expected && !(kind == ShardKind::kBlock && is_optional(tensor.role, architecture))) {
      throw Error(ErrorCode::kInvalidArgument, "Shard " + name + " has a tensor " + name_of(tensor.role) + " that does not belong there.");
    }
    if (std::find(seen.begin(), seen.end(), tensor.role) != seen.end()) {
      throw Error(ErrorCode::kInvalidArgument, "Shard " + name + " has two tensors " + std::string(name_of(tensor.role)) + ".");
    }
    seen.push_back(tensor.role);
    check_shape(name, tensor, architecture);
  }
  for (const TensorRole role : required) {
    if (std::find(seen.begin(), seen.end(), role) == seen.end()) {
      throw Error(ErrorCode::kInvalidArgument, "Shard " + name + " has no tensor " + name_of(role) + ".");
    }
  }
  return kind;
}

ShardKind check_shard(const std::string& name, std::span<const TensorView> tensors, const Architecture& architecture) {
  const ShardKind kind = check_layout(name, std::vector<TensorLayout>(tensors.begin(), tensors.end()), architecture);
  for (const TensorView& tensor : tensors) check_bytes(name, tensor);
  return kind;
}

void check_sketches(std::size_t sketches) {
  if (sketches <= kMostSketches) return;
  throw Error(ErrorCode::kInvalidArgument,
              "sketches must be at most " + std::to_string(kMostSketches) + ", not " + std::to_string(sketches) + ".");
}

void check_workload(const Workload& workload, const Architecture& architecture) {
  check_architecture(architecture);
  const auto require_kind = [&](const char* name, const std::vector<TensorLayout>& tensors, ShardKind expected) {
    const ShardKind kind = check_layout(name, tensors, architecture);
    if (kind == expected) return;
    throw Error(ErrorCode::kInvalidArgument, "The " + std::string(name) + " of the workload is " + name_of(kind) + ".");
  };
  require_kind("block", workload.block, ShardKind::kBlock);
  // Nothing but the weights of blocks is asked for.
  if (workload.metric == BlockMetric::kSpectrum) return;
  require_kind("embedding", workload.embedding, ShardKind::kEmbedding);
  if (!workload.head.empty()) require_kind("head", workload.head, ShardKind::kHead);
  check_size(workload.groups, "groups");
  check_size(workload.samples_per_group, "samplesPerGroup");
  check_size(workload.sequence_length, "sequenceLength");
  if (workload.sequence_length > architecture.maximum_positions) {
    throw Error(ErrorCode::kInvalidArgument, "sequenceLength is " + std::to_string(workload.sequence_length) +
                                                 "; the model takes at most " + std::to_string(architecture.maximum_positions) +
                                                 " tokens.");
  }
  if (workload.allocation_samples > kMaximumSize) check_size(workload.allocation_samples, "allocationSamples");
  check_sketches(workload.sketches);
  if (!(workload.sparsity >= 0 && workload.sparsity < 1)) {
    throw Error(ErrorCode::kInvalidArgument, "The sparsity of the workload must be from 0 to below 1.");
  }
  const std::size_t width = std::max({architecture.hidden_size, architecture.query_width(), architecture.intermediate_size});
  const double states = static_cast<double>(workload.groups) * static_cast<double>(workload.samples_per_group) *
                        static_cast<double>(workload.sequence_length) * static_cast<double>(width);
  if (states > kMaximumStates) {
    throw Error(ErrorCode::kInvalidArgument, "groups x samplesPerGroup x sequenceLength are more tokens than can be planned for.");
  }
  if (workload.tokens > workload.groups * workload.samples_per_group * workload.sequence_length) {
    throw Error(ErrorCode::kInvalidArgument,
                "tokens must be at most groups x samplesPerGroup x sequenceLength, not " + std::to_string(workload.tokens) + ".");
  }
}

void check_architecture(const Architecture& a) {
  check_size(a.hidden_size, "hiddenSize");
  check_size(a.intermediate_size, "intermediateSize");
  check_size(a.attention_heads, "attentionHeads");
  check_size(a.key_value_heads, "keyValueHeads");
  check_size(a.head_dimension, "headDimension");
  check_size(a.vocabulary_size, "vocabularySize");
  check_size(a.maximum_positions, "maximumPositions");
  check_size(a.query_width(), "attentionHeads x headDimension");
  if (a.embedding_size != 0) check_size(a.embedding_size, "embeddingSize");
  if (a.learned_position_offset > kMaximumSize) {
    throw Error(ErrorCode::kInvalidArgument, "learnedPositionOffset must be from 0 to " + std::to_string(kMaximumSize) + ", not " +
                                                 std::to_string(a.learned_position_offset) + ".");
  }
  if (a.attention_heads % a.key_value_heads != 0) {
    throw Error(ErrorCode::kInvalidArgument, "attentionHeads (" + std::to_string(a.attention_heads) +
                                                 ") must be a multiple of keyValueHeads (" + std::to_string(a.key_value_heads) + ").");
  }
  if (!(a.normalization_epsilon > 0 && std::isfinite(a.normalization_epsilon))) {
    throw Error(ErrorCode::kInvalidArgument, "normalizationEpsilon must be finite and above 0.");
  }
  if (a.position_encoding == PositionEncoding::kRotary &&
      (a.head_dimension % 2 != 0 || !(a.rotary_base > 0 && std::isfinite(a.rotary_base)))) {
    throw Error(ErrorCode::kInvalidArgument, "Rotary positions need an even headDimension and a finite rotaryBase above 0.");
  }
  check_rotary_scaling(a);
}

void check_tokens(const GroupTokens& tokens, const Architecture& architecture) {
  const std::size_t length = tokens.sequence_length;
  if (tokens.samples == 0 || length == 0 || length > architecture.maximum_positions || tokens.samples > kMaximumSize ||
      tokens.ids.size() != tokens.samples * length) {
    throw Error(ErrorCode::kInvalidArgument, "Group " + std::to_string(tokens.index) + " needs samples x sequenceLength ids, with 1 to " +
                                                 std::to_string(architecture.maximum_positions) + " tokens per sample.");
  }
  for (std::size_t i = 0; i < tokens.ids.size(); ++i) {
    if (tokens.ids[i] < 0 || static_cast<std::size_t>(tokens.ids[i]) >= architecture.vocabulary_size) {
      throw Error(ErrorCode::kInvalidArgument, "Group " + std::to_string(tokens.index) + ": token id " + std::to_string(tokens.ids[i]) +
                                                   " at " + std::to_string(i) + " is outside the vocabulary of " +
                                                   std::to_string(architecture.vocabulary_size) + ".");
    }
  }
}

void check_saved_bytes(std::uint32_t group, std::size_t given, std::uint64_t expected) {
  if (given == expected) return;
  throw Error(ErrorCode::kInvalidArgument, "The hidden states of group " + std::to_string(group) + " take " + std::to_string(expected) +
                                               " bytes, not " + std::to_string(given) + ".");
}

std::vector<TokenRange> measured_ranges(const GroupTokens& tokens, std::span<const TokenRange> ranges) {
  const std::size_t length = tokens.sequence_length;
  if (length < 2) throw Error(ErrorCode::kInvalidArgument, "A loss needs at least 2 tokens per sample.");
  if (ranges.empty()) return std::vector<TokenRange>(tokens.samples, {1, length});
  if (ranges.size() != tokens.samples) {
    throw Error(ErrorCode::kInvalidArgument, "Group " + std::to_string(tokens.index) + " has " + std::to_string(tokens.samples) +
                                                 " samples; " + std::to_string(ranges.size()) + " ranges of tokens were given.");
  }
  for (const auto& [first, end] : ranges) {
    if (first >= 1 && first < end && end <= length) continue;
    throw Error(ErrorCode::kInvalidArgument,
                "Group " + std::to_string(tokens.index) + ": tokens " + std::to_string(first) + " to before " + std::to_string(end) +
                    " cannot be measured; they must be some of the tokens from 1 to before " + std::to_string(length) + ".");
  }
  return {ranges.begin(), ranges.end()};
}

void check_sites(InputSites sites) {
  if (sites.empty()) throw Error(ErrorCode::kInvalidArgument, "sites is empty; name at least one.");
}

void check_mask(TensorRole projection, std::size_t rows, std::size_t columns, std::size_t mask_bytes) {
  const std::size_t expected = rows * ((columns + 7) / 8);
  if (mask_bytes == expected) return;
  throw Error(ErrorCode::kInvalidArgument, "The mask of " + std::string(name_of(projection)) + " has " + std::to_string(mask_bytes) +
                                               " bytes; its shape asks for " + std::to_string(expected) + ".");
}

}  // namespace secateur

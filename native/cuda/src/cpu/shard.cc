#include "cpu/shard.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "cpu/element_type.h"

namespace secateur::cpu {

namespace {

constexpr std::size_t kConvertBlock = std::size_t{1} << 18;

std::string describe(std::span<const std::size_t> shape) {
  std::string text = "[";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) text += (axis == 0 ? "" : ", ") + std::to_string(shape[axis]);
  return text + "]";
}

std::vector<std::size_t> expected_shape(TensorRole role, const Architecture& a) {
  switch (role) {
    case TensorRole::kTokenEmbedding:
    case TensorRole::kHeadWeight:
      return {a.vocabulary_size, a.hidden_size};
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
    case TensorRole::kUpBias:
      return {a.intermediate_size};
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
      return roles;
    case ShardKind::kBlock:
      roles = {TensorRole::kAttentionNormWeight, TensorRole::kQueryWeight,           TensorRole::kKeyWeight, TensorRole::kValueWeight,
               TensorRole::kOutputWeight,        TensorRole::kFeedForwardNormWeight, TensorRole::kUpWeight,  TensorRole::kDownWeight};
      if (architecture.feed_forward == FeedForward::kGatedSilu) roles.push_back(TensorRole::kGateWeight);
      if (layer) roles.insert(roles.end(), {TensorRole::kAttentionNormBias, TensorRole::kFeedForwardNormBias});
      return roles;
    case ShardKind::kHead:
      roles = {TensorRole::kFinalNormWeight, TensorRole::kHeadWeight};
      if (layer) roles.push_back(TensorRole::kFinalNormBias);
      return roles;
  }
  return roles;
}

bool is_optional(TensorRole role) {
  switch (role) {
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
      return true;
    default:
      return false;
  }
}

ShardKind kind_of(const std::string& name, std::span<const TensorView> tensors) {
  for (const TensorView& tensor : tensors) {
    if (tensor.role == TensorRole::kTokenEmbedding) return ShardKind::kEmbedding;
    if (tensor.role == TensorRole::kHeadWeight) return ShardKind::kHead;
    if (tensor.role == TensorRole::kQueryWeight) return ShardKind::kBlock;
  }
  throw Error(ErrorCode::kInvalidArgument, "Shard " + name + " has neither a token embedding nor a query projection nor a head.");
}

void check_tensor(const std::string& shard, const TensorView& tensor, const Architecture& architecture) {
  const std::vector<std::size_t> expected = expected_shape(tensor.role, architecture);
  if (tensor.shape != expected) {
    throw Error(ErrorCode::kInvalidArgument, "Shard " + shard + ": " + name_of(tensor.role) + " has the shape " + describe(tensor.shape) +
                                                 "; the architecture asks for " + describe(expected) + ".");
  }
  const std::size_t elements = std::accumulate(expected.begin(), expected.end(), std::size_t{1}, std::multiplies<>());
  if (tensor.bytes.size() != elements * bytes_of(tensor.element_type)) {
    throw Error(ErrorCode::kInvalidArgument, "Shard " + shard + ": " + name_of(tensor.role) + " has " +
                                                 std::to_string(tensor.bytes.size()) + " bytes; its shape and type ask for " +
                                                 std::to_string(elements * bytes_of(tensor.element_type)) + ".");
  }
}

Matrix convert(const TensorView& tensor, MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  Matrix matrix;
  matrix.rows = tensor.shape.size() == 2 ? tensor.shape[0] : 1;
  matrix.columns = tensor.shape.back();
  const std::size_t elements = matrix.rows * matrix.columns;
  matrix.values = Buffer<float>(budget, elements, name_of(tensor.role));
  const std::size_t element_bytes = bytes_of(tensor.element_type);
  pool.parallel_for((elements + kConvertBlock - 1) / kConvertBlock, [&](std::size_t item, std::size_t) {
    context.check();
    const std::size_t begin = item * kConvertBlock;
    const std::size_t count = std::min(kConvertBlock, elements - begin);
    const PhaseScope scope(context, "convert", 0, static_cast<double>(count * (element_bytes + sizeof(float))));
    widen(tensor.element_type, tensor.bytes.data() + begin * element_bytes, count, matrix.values.data() + begin);
  });
  return matrix;
}

}  // namespace

Shard::Shard(const std::string& name, std::span<const TensorView> tensors, const Architecture& architecture, Compute compute,
             MemoryBudget& budget, ThreadPool& pool, CallContext& context)
    : name_(name), kind_(kind_of(name, tensors)) {
  const std::vector<TensorRole> required = required_roles(kind_, architecture);
  std::vector<TensorRole> seen;
  for (const TensorView& tensor : tensors) {
    const bool expected = std::find(required.begin(), required.end(), tensor.role) != required.end();
    if (!expected && !(kind_ == ShardKind::kBlock && is_optional(tensor.role))) {
      throw Error(ErrorCode::kInvalidArgument, "Shard " + name + " has a tensor " + name_of(tensor.role) + " that does not belong there.");
    }
    if (std::find(seen.begin(), seen.end(), tensor.role) != seen.end()) {
      throw Error(ErrorCode::kInvalidArgument, "Shard " + name + " has two tensors " + std::string(name_of(tensor.role)) + ".");
    }
    seen.push_back(tensor.role);
    check_tensor(name, tensor, architecture);
  }
  for (const TensorRole role : required) {
    if (std::find(seen.begin(), seen.end(), role) == seen.end()) {
      throw Error(ErrorCode::kInvalidArgument, "Shard " + name + " has no tensor " + name_of(role) + ".");
    }
  }
  for (const TensorView& tensor : tensors) {
    if (tensor.role == TensorRole::kTokenEmbedding) {
      token_table_ = {tensor.element_type, Buffer<std::uint8_t>(budget, tensor.bytes.size(), name_of(tensor.role))};
      std::memcpy(token_table_.bytes.data(), tensor.bytes.data(), tensor.bytes.size());
    } else if (is_multiplied(tensor.role)) {
      projections_.try_emplace(tensor.role, tensor.role, convert(tensor, budget, pool, context), compute, budget, pool, context);
    } else {
      others_.emplace(tensor.role, convert(tensor, budget, pool, context));
    }
  }
}

const Projection& Shard::projection(TensorRole role) const {
  const auto found = projections_.find(role);
  if (found == projections_.end()) {
    throw Error(ErrorCode::kInvalidArgument, is_multiplied(role) ? "Shard " + name_ + " has no tensor " + name_of(role) + "."
                                                                 : std::string(name_of(role)) + " is not a projection.");
  }
  return found->second;
}

Projection& Shard::projection(TensorRole role) { return const_cast<Projection&>(std::as_const(*this).projection(role)); }

const float* Shard::find(TensorRole role) const noexcept {
  const auto found = others_.find(role);
  return found == others_.end() ? nullptr : found->second.values.data();
}

}  // namespace secateur::cpu

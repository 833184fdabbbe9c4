#include "cpu/shard.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "cpu/element_type.h"

namespace secateur::cpu {

namespace {

constexpr std::size_t kConvertBlock = std::size_t{1} << 18;

Matrix convert(const TensorView& tensor, Buffer<float> room, ThreadPool& pool, CallContext& context) {
  Matrix matrix;
  matrix.rows = tensor.shape.size() == 2 ? tensor.shape[0] : 1;
  matrix.columns = tensor.shape.back();
  const std::size_t elements = matrix.rows * matrix.columns;
  matrix.values = std::move(room);
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

Shard::Shard(const std::string& name, std::span<const TensorView> tensors, std::size_t attention_window, const Architecture& architecture,
             Compute compute, MemoryBudget& budget, SpareBuffers& spare, ThreadPool& pool, CallContext& context)
    : name_(name), attention_window_(attention_window), kind_(check_shard(name, tensors, architecture)) {
  // What this shard does not take would come on top of it.
  spare.keep_only_for(kind_ == ShardKind::kBlock ? tensors : std::span<const TensorView>());
  for (const TensorView& tensor : tensors) {
    if (tensor.role == TensorRole::kTokenEmbedding) {
      token_table_ = {tensor.element_type, Buffer<std::uint8_t>(budget, tensor.bytes.size(), name_of(tensor.role))};
      std::memcpy(token_table_.bytes.data(), tensor.bytes.data(), tensor.bytes.size());
    } else if (is_multiplied(tensor.role)) {
      Matrix weight = convert(tensor, spare.take(budget, elements_of(tensor), name_of(tensor.role)), pool, context);
      projections_.try_emplace(tensor.role, tensor.role, std::move(weight), compute, budget, pool, context);
    } else {
      others_.emplace(tensor.role, convert(tensor, {budget, elements_of(tensor), name_of(tensor.role)}, pool, context));
    }
  }
}

void Shard::give_back_to(SpareBuffers& spare) && {
  for (auto& [role, projection] : projections_) spare.keep(std::move(projection).take_values());
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

const Projection& Shard::dense_projection(TensorRole role) const {
  const auto found = dense_.find(role);
  return found == dense_.end() ? projection(role) : found->second;
}

void Shard::keep_dense(TensorRole role, Compute compute, MemoryBudget& budget, ThreadPool& pool, CallContext& context) {
  if (dense_.contains(role)) return;
  Projection& loaded = projection(role);
  const Matrix& dense = loaded.dense();
  Matrix copy = {dense.rows, dense.columns, Buffer<float>(budget, dense.values.size(), name_of(role))};
  std::ranges::copy(dense.values.span(), copy.values.data());
  Projection changing(role, std::move(copy), compute, budget, pool, context);
  dense_.emplace(role, std::exchange(loaded, std::move(changing)));
}

const float* Shard::find(TensorRole role) const noexcept {
  const auto found = others_.find(role);
  return found == others_.end() ? nullptr : found->second.values.data();
}

}  // namespace secateur::cpu

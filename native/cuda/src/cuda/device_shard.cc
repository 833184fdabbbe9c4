#include "cuda/device_shard.h"

#include <cstring>
#include <utility>

#include "cuda/kernels/elementwise.h"

namespace secateur::gpu {

namespace {

StoredType stored_type_of(ElementType type) {
  switch (type) {
    case ElementType::kF32:
      return StoredType::kF32;
    case ElementType::kF16:
      return StoredType::kF16;
    case ElementType::kBF16:
      return StoredType::kBF16;
  }
  return StoredType::kF32;
}

void widen_stored(ElementType type, const std::uint8_t* stored, float* values, std::size_t size, cudaStream_t stream) {
  check(type == ElementType::kF16 ? widen(reinterpret_cast<const float16*>(stored), values, size, stream)
                                  : widen(reinterpret_cast<const bfloat16*>(stored), values, size, stream),
        "widening a tensor");
}

}  // namespace

ShardMemory DeviceShard::memory_of(std::span<const TensorLayout> tensors, Compute compute) {
  ShardMemory memory;
  for (const TensorLayout& tensor : tensors) {
    const std::uint64_t elements = elements_of(tensor);
    const std::uint64_t stored = elements * bytes_of(tensor.element_type);
    memory.pinned += stored;
    if (tensor.role == TensorRole::kTokenEmbedding) {
      memory.device += stored;
      continue;
    }
    const bool narrowed = is_multiplied(tensor.role) && compute == Compute::kBF16;
    if (narrowed) memory.device += elements * sizeof(bfloat16);
    if (narrowed && tensor.element_type == ElementType::kBF16) continue;
    memory.device += elements * sizeof(float);
    if (tensor.element_type != ElementType::kF32) memory.uploading += stored;
  }
  return memory;
}

DeviceShard::DeviceShard(const std::string& name, std::span<const TensorView> tensors, const Architecture& architecture, Compute compute,
                         MemoryBudget& budget, const Stream& upload)
    : name_(name), kind_(check_shard(name, tensors, architecture)) {
  for (const TensorView& tensor : tensors) upload_tensor(tensor, compute, budget, upload);
  ready_.record(upload);
}

void DeviceShard::upload_tensor(const TensorView& tensor, Compute compute, MemoryBudget& budget, const Stream& upload) {
  const char* const purpose = name_of(tensor.role);
  PinnedBuffer<std::uint8_t> staged(tensor.bytes.size());
  std::memcpy(staged.data(), tensor.bytes.data(), tensor.bytes.size());
  const auto copy_to = [&](void* target) {
    check(cudaMemcpyAsync(target, staged.data(), tensor.bytes.size(), cudaMemcpyHostToDevice, upload.get()), "uploading a tensor");
    staging_.push_back(std::move(staged));
  };
  if (tensor.role == TensorRole::kTokenEmbedding) {
    token_table_ = DeviceBuffer<std::uint8_t>(budget, tensor.bytes.size(), purpose);
    token_table_type_ = stored_type_of(tensor.element_type);
    copy_to(token_table_.data());
    return;
  }
  const std::size_t elements = tensor.bytes.size() / bytes_of(tensor.element_type);
  const auto upload_widened = [&] {
    DeviceBuffer<float> values(budget, elements, purpose);
    if (tensor.element_type == ElementType::kF32) {
      copy_to(values.data());
    } else {
      DeviceBuffer<std::uint8_t> stored(budget, tensor.bytes.size(), purpose);
      copy_to(stored.data());
      widen_stored(tensor.element_type, stored.data(), values.data(), elements, upload.get());
      stored_.push_back(std::move(stored));
    }
    return values;
  };
  if (!is_multiplied(tensor.role)) {
    others_.emplace(tensor.role, upload_widened());
    return;
  }
  DeviceMatrix matrix;
  matrix.rows = tensor.shape[0];
  matrix.columns = tensor.shape[1];
  if (compute == Compute::kBF16) matrix.narrowed = DeviceBuffer<bfloat16>(budget, elements, purpose);
  if (compute == Compute::kBF16 && tensor.element_type == ElementType::kBF16) {
    copy_to(matrix.narrowed.data());
  } else {
    matrix.values = upload_widened();
    if (compute == Compute::kBF16) {
      check(narrow(matrix.values.data(), matrix.narrowed.data(), elements, upload.get()), "narrowing a tensor");
    }
  }
  matrices_.emplace(tensor.role, std::move(matrix));
}

DeviceMatrix& DeviceShard::matrix(TensorRole role) {
  const auto found = matrices_.find(role);
  if (found == matrices_.end()) {
    throw Error(ErrorCode::kInvalidArgument, is_multiplied(role) ? "Shard " + name_ + " has no tensor " + name_of(role) + "."
                                                                 : std::string(name_of(role)) + " is not a projection.");
  }
  return found->second;
}

const float* DeviceShard::find(TensorRole role) const noexcept {
  const auto found = others_.find(role);
  return found == others_.end() ? nullptr : found->second.data();
}

void DeviceShard::settle() {
  if (staging_.empty() || cudaEventQuery(ready_.get()) != cudaSuccess) return;
  stored_.clear();
  staging_.clear();
}

}  // namespace secateur::gpu

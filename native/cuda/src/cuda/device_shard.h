// The tensors of a shard in device memory.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/shard_layout.h"
#include "cuda/device_buffer.h"
#include "cuda/kernels/embedding.h"
#include "cuda/stream.h"
#include "cuda/tensor_core.h"
#include "secateur/backend.h"

namespace secateur::gpu {

// A matrix that activations are multiplied with, as what products of its session take.
struct DeviceMatrix {
  std::size_t rows = 0;
  std::size_t columns = 0;
  // Empty where the narrowed values are the stored ones.
  DeviceBuffer<float> values;
  // Empty in float32 sessions.
  DeviceBuffer<bfloat16> narrowed;
};

// Memory of a shard.
struct ShardMemory {
  std::uint64_t device = 0;
  // While it is uploaded: values as stored on the device, and the pinned memory they leave from.
  std::uint64_t uploading = 0;
  std::uint64_t pinned = 0;
};

class DeviceShard {
 public:
  static ShardMemory memory_of(std::span<const TensorLayout> tensors, Compute compute);

  // Begins to upload: what uses the tensors must wait for ready(). Throws InvalidArgument as check_shard does, and OutOfMemory.
  DeviceShard(const std::string& name, std::span<const TensorView> tensors, const Architecture& architecture, Compute compute,
              MemoryBudget& budget, const Stream& upload);

  ShardKind kind() const noexcept { return kind_; }
  const Event& ready() const noexcept { return ready_; }
  // Frees what only the upload needed, if it is over.
  void settle();
  // Throws InvalidArgument when there is none in that role.
  DeviceMatrix& matrix(TensorRole role);
  // float32, or null when the shard has none in that role.
  const float* find(TensorRole role) const noexcept;
  const void* token_table() const noexcept { return token_table_.data(); }
  StoredType token_table_type() const noexcept { return token_table_type_; }

 private:
  void upload_tensor(const TensorView& tensor, Compute compute, MemoryBudget& budget, const Stream& upload);

  std::string name_;
  ShardKind kind_;
  std::map<TensorRole, DeviceMatrix> matrices_;
  std::map<TensorRole, DeviceBuffer<float>> others_;
  DeviceBuffer<std::uint8_t> token_table_;
  StoredType token_table_type_ = StoredType::kF32;
  // Stored bytes on their way, and the pinned memory they leave from; given back when the next call finds them arrived.
  std::vector<DeviceBuffer<std::uint8_t>> stored_;
  std::vector<PinnedBuffer<std::uint8_t>> staging_;
  Event ready_;
};

}  // namespace secateur::gpu

// The tensors of a shard in device memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "common/shard_layout.h"
#include "cuda/device_buffer.h"
#include "cuda/kernels/embedding.h"
#include "cuda/stream.h"
#include "secateur/backend.h"

namespace secateur::gpu {

// A matrix that activations are multiplied with, as what products of its session take.
struct DeviceMatrix {
  std::size_t rows = 0;
  std::size_t columns = 0;
  Compute compute = Compute::kF32;
  // Empty where the narrowed values are the stored ones.
  std::span<float> values;
  // Of the type that `compute` says (narrow_values.h); empty for float32.
  std::span<std::uint16_t> narrowed;
};

// Memory of a shard, in whole blocks.
struct ShardMemory {
  std::uint64_t device = 0;
  // While it is uploaded: values as stored that the device converts, and the pinned memory that all leave from.
  std::uint64_t uploading = 0;
  std::uint64_t pinned = 0;
};

class DeviceShard {
 public:
  static ShardMemory memory_of(std::span<const TensorLayout> tensors, Compute compute);
  // Device memory of its projections as they were loaded, once one of them has changed.
  static std::uint64_t dense_bytes(std::span<const TensorLayout> tensors, Compute compute);

  // Begins to upload into device memory from that end: what uses the tensors must wait for ready(). Throws InvalidArgument as check_shard
  // does, and OutOfMemory.
  DeviceShard(const std::string& name, std::span<const TensorView> tensors, std::size_t attention_window, const Architecture& architecture,
              Compute compute, SessionMemory& memory, End end, ThreadPool& pool, const Stream& upload);
  // Waits for what is left of the upload.
  ~DeviceShard();
  DeviceShard(const DeviceShard&) = delete;
  DeviceShard& operator=(const DeviceShard&) = delete;

  ShardKind kind() const noexcept { return kind_; }
  // Keys that each query of a block sees; 0 for all.
  std::size_t attention_window() const noexcept { return attention_window_; }
  End end() const noexcept { return end_; }
  const Event& ready() const noexcept { return ready_; }
  // Waits for the upload and gives back what only that needed.
  void settle();
  // Throws InvalidArgument when there is none in that role.
  DeviceMatrix& matrix(TensorRole role);
  // Keeps the matrix in that role as it is, besides what becomes of it on the stream, unless that was done before.
  void keep_dense(TensorRole role, SessionMemory& memory, const Stream& stream);
  // The values become those stored, of any alignment; what that takes is given back at the end, so the caller waits for the stream.
  void replace(TensorRole role, ElementType stored, std::span<const std::uint8_t> bytes, SessionMemory& memory, const Stream& stream);
  // Of that, the device memory.
  static std::uint64_t replacing_bytes(const TensorLayout& tensor, Compute compute);
  // As it was loaded.
  const DeviceMatrix& dense_matrix(TensorRole role);
  // float32, or null when the shard has none in that role.
  const float* find(TensorRole role) const noexcept;
  const void* token_table() const noexcept { return token_table_; }
  StoredType token_table_type() const noexcept { return token_table_type_; }

 private:
  class Upload;
  void upload_tensor(const TensorView& tensor, Upload& upload);

  std::string name_;
  Compute compute_;
  std::size_t attention_window_;
  ShardKind kind_;
  End end_;
  // All tensors, one behind the other.
  DeviceBuffer<std::byte> tensors_;
  std::map<TensorRole, DeviceMatrix> matrices_;
  // Those that changed, as they were; room for all.
  DeviceBuffer<std::byte> dense_;
  std::size_t dense_used_ = 0;
  std::map<TensorRole, DeviceMatrix> dense_matrices_;
  std::map<TensorRole, const float*> others_;
  const void* token_table_ = nullptr;
  StoredType token_table_type_ = StoredType::kF32;
  // Stored bytes that are widened or narrowed on the device, and the pinned memory that all stored bytes leave from.
  DeviceBuffer<std::byte> stored_;
  PinnedBuffer<std::byte> staging_;
  Event ready_;
};

}  // namespace secateur::gpu

#include "cuda/device_shard.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "cuda/narrow_values.h"
#include "cuda/transfers.h"

namespace secateur::gpu {

namespace {

// By a thread at a time.
constexpr std::size_t kCopiedBytes = std::size_t{2} << 20;

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

void widen_stored(ElementType type, const void* stored, float* values, std::size_t size, cudaStream_t stream) {
  check(type == ElementType::kF16 ? widen(static_cast<const float16*>(stored), values, size, stream)
                                  : widen(static_cast<const bfloat16*>(stored), values, size, stream),
        "widening a tensor");
}

}  // namespace

ShardMemory DeviceShard::memory_of(std::span<const TensorLayout> tensors, Compute compute) {
  ShardMemory memory;
  for (const TensorLayout& tensor : tensors) {
    const std::uint64_t elements = elements_of(tensor);
    const std::uint64_t stored = whole_blocks(elements * bytes_of(tensor.element_type));
    memory.pinned += stored;
    if (tensor.role == TensorRole::kTokenEmbedding) {
      memory.device += stored;
      continue;
    }
    const bool narrowed = is_multiplied(tensor.role) && is_narrow(compute);
    if (narrowed) memory.device += block_bytes<std::uint16_t>(elements);
    if (narrowed && takes_as_stored(compute, tensor.element_type)) continue;
    memory.device += block_bytes<float>(elements);
    if (tensor.element_type != ElementType::kF32) memory.uploading += stored;
  }
  return memory;
}

// Lays the tensors of a shard out in its memory and queues their copies.
class DeviceShard::Upload {
 public:
  Upload(DeviceShard& shard, ThreadPool& pool, const Stream& stream)
      : pool_(pool), stream_(stream), tensors_(shard.tensors_.data()), stored_(shard.stored_.data()), staging_(shard.staging_.data()) {}

  cudaStream_t stream() const noexcept { return stream_.get(); }

  template <class T>
  std::span<T> place(std::size_t elements) {
    return {reinterpret_cast<T*>(std::exchange(tensors_, tensors_ + block_bytes<T>(elements))), elements};
  }
  // For values as stored.
  void* place_stored(std::size_t bytes) { return std::exchange(stored_, stored_ + whole_blocks(bytes)); }

  void copy(const TensorView& tensor, void* target) {
    std::byte* const staged = std::exchange(staging_, staging_ + whole_blocks(tensor.bytes.size()));
    // One thread copies slower than the device takes the bytes.
    pool_.parallel_for((tensor.bytes.size() + kCopiedBytes - 1) / kCopiedBytes, [&](std::size_t part, std::size_t) {
      const std::size_t offset = part * kCopiedBytes;
      std::memcpy(staged + offset, tensor.bytes.data() + offset, std::min(kCopiedBytes, tensor.bytes.size() - offset));
    });
    check(cudaMemcpyAsync(target, staged, tensor.bytes.size(), cudaMemcpyHostToDevice, stream_.get()), "uploading a tensor");
  }

 private:
  ThreadPool& pool_;
  const Stream& stream_;
  std::byte* tensors_;
  std::byte* stored_;
  std::byte* staging_;
};

DeviceShard::DeviceShard(const std::string& name, std::span<const TensorView> tensors, std::size_t attention_window,
                         const Architecture& architecture, Compute compute, SessionMemory& memory, End end, ThreadPool& pool,
                         const Stream& upload)
    : name_(name), compute_(compute), attention_window_(attention_window), kind_(check_shard(name, tensors, architecture)), end_(end) {
  const std::vector<TensorLayout> layouts(tensors.begin(), tensors.end());
  const ShardMemory needed = memory_of(layouts, compute);
  const std::string purpose = "shard " + name;
  // What stays lies at the very end of the memory, what goes beside the memory that is free.
  tensors_ = DeviceBuffer<std::byte>(memory, needed.device, purpose, end);
  stored_ = DeviceBuffer<std::byte>(memory, needed.uploading, purpose, end);
  staging_ = PinnedBuffer<std::byte>(memory, needed.pinned, purpose, End::kHigh);
  Upload uploading(*this, pool, upload);
  try {
    for (const TensorView& tensor : tensors) upload_tensor(tensor, uploading);
    ready_.record(upload);
  } catch (...) {
    static_cast<void>(cudaStreamSynchronize(upload.get()));
    throw;
  }
}

DeviceShard::~DeviceShard() { static_cast<void>(cudaEventSynchronize(ready_.get())); }

void DeviceShard::upload_tensor(const TensorView& tensor, Upload& upload) {
  if (tensor.role == TensorRole::kTokenEmbedding) {
    const std::span<std::byte> table = upload.place<std::byte>(tensor.bytes.size());
    upload.copy(tensor, table.data());
    token_table_ = table.data();
    token_table_type_ = stored_type_of(tensor.element_type);
    return;
  }
  const std::size_t elements = elements_of(tensor);
  const auto upload_widened = [&] {
    const std::span<float> values = upload.place<float>(elements);
    if (tensor.element_type == ElementType::kF32) {
      upload.copy(tensor, values.data());
    } else {
      void* const stored = upload.place_stored(tensor.bytes.size());
      upload.copy(tensor, stored);
      widen_stored(tensor.element_type, stored, values.data(), elements, upload.stream());
    }
    return values;
  };
  if (!is_multiplied(tensor.role)) {
    others_.emplace(tensor.role, upload_widened().data());
    return;
  }
  DeviceMatrix matrix;
  matrix.rows = tensor.shape[0];
  matrix.columns = tensor.shape[1];
  matrix.compute = compute_;
  if (is_narrow(compute_)) matrix.narrowed = upload.place<std::uint16_t>(elements);
  if (takes_as_stored(compute_, tensor.element_type)) {
    upload.copy(tensor, matrix.narrowed.data());
  } else {
    matrix.values = upload_widened();
    if (is_narrow(compute_)) {
      check(narrow(compute_, matrix.values.data(), matrix.narrowed.data(), elements, upload.stream()), "narrowing a tensor");
    }
  }
  matrices_.emplace(tensor.role, matrix);
}

DeviceMatrix& DeviceShard::matrix(TensorRole role) {
  const auto found = matrices_.find(role);
  if (found == matrices_.end()) {
    throw Error(ErrorCode::kInvalidArgument, is_multiplied(role) ? "Shard " + name_ + " has no tensor " + name_of(role) + "."
                                                                 : std::string(name_of(role)) + " is not a projection.");
  }
  return found->second;
}

std::uint64_t DeviceShard::dense_bytes(std::span<const TensorLayout> tensors, Compute compute) {
  std::uint64_t bytes = 0;
  for (const TensorLayout& tensor : tensors) {
    if (is_multiplied(tensor.role)) bytes += memory_of(std::span(&tensor, 1), compute).device;
  }
  return bytes;
}

void DeviceShard::keep_dense(TensorRole role, SessionMemory& memory, const Stream& stream) {
  if (dense_matrices_.contains(role)) return;
  const DeviceMatrix& own = matrix(role);
  if (dense_.empty()) {
    std::uint64_t bytes = 0;
    for (const auto& [of, each] : matrices_)
      bytes += block_bytes<float>(each.values.size()) + block_bytes<std::uint16_t>(each.narrowed.size());
    dense_ = DeviceBuffer<std::byte>(memory, bytes, "dense weights of shard " + name_, end_);
  }
  const auto keep = [&]<class T>(std::span<T> values) {
    const std::span<T> kept(reinterpret_cast<T*>(dense_.data() + dense_used_), values.size());
    dense_used_ += block_bytes<T>(values.size());
    check(cudaMemcpyAsync(kept.data(), values.data(), values.size_bytes(), cudaMemcpyDeviceToDevice, stream.get()),
          "keeping dense weights");
    return kept;
  };
  DeviceMatrix dense{own.rows, own.columns, own.compute, {}, {}};
  if (!own.values.empty()) dense.values = keep(own.values);
  if (!own.narrowed.empty()) dense.narrowed = keep(own.narrowed);
  dense_matrices_.emplace(role, dense);
}

std::uint64_t DeviceShard::replacing_bytes(const TensorLayout& tensor, Compute compute) {
  // Never more than float32 as stored and, where only narrow values are kept, widened.
  return (takes_as_stored(compute, tensor.element_type) ? 2 : 1) * block_bytes<float>(elements_of(tensor));
}

void DeviceShard::replace(TensorRole role, ElementType stored, std::span<const std::uint8_t> bytes, SessionMemory& memory,
                          const Stream& stream) {
  const DeviceMatrix& own = matrix(role);
  const std::size_t size = own.rows * own.columns;
  DeviceBuffer<std::byte> as_stored(memory, bytes.size(), "weights on their way");
  upload(std::as_bytes(bytes), as_stored.data(), stream, "uploading weights");
  DeviceBuffer<float> wide(memory, own.values.empty() ? size : 0, "weights on their way");
  float* const values = own.values.empty() ? wide.data() : own.values.data();
  if (stored == ElementType::kF32) {
    check(cudaMemcpyAsync(values, as_stored.data(), bytes.size(), cudaMemcpyDeviceToDevice, stream.get()), "replacing weights");
  } else {
    widen_stored(stored, as_stored.data(), values, size, stream.get());
  }
  if (!own.narrowed.empty()) check(narrow(compute_, values, own.narrowed.data(), size, stream.get()), "narrowing weights");
}

const DeviceMatrix& DeviceShard::dense_matrix(TensorRole role) {
  const auto found = dense_matrices_.find(role);
  return found == dense_matrices_.end() ? matrix(role) : found->second;
}

const float* DeviceShard::find(TensorRole role) const noexcept {
  const auto found = others_.find(role);
  return found == others_.end() ? nullptr : found->second;
}

void DeviceShard::settle() {
  if (staging_.empty()) return;
  ready_.wait();
  stored_ = {};
  staging_ = {};
}

}  // namespace secateur::gpu

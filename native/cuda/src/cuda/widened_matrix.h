// The values of a matrix as the checkpoint has them, in float32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/cuda_error.h"
#include "cuda/device_buffer.h"
#include "cuda/device_shard.h"
#include "cuda/narrow_values.h"
#include "cuda/stream.h"

namespace secateur::gpu {

// Where only narrow values are kept, those are the stored values: then they are widened into memory of its own, which it needs no longer
// than what is queued until it ends.
class WidenedMatrix {
 public:
  // Of the block's tensor; what the copy takes of the device.
  static std::uint64_t bytes(const TensorLayout& tensor, Compute compute) {
    return takes_as_stored(compute, tensor.element_type) ? block_bytes<float>(elements_of(tensor)) : 0;
  }

  WidenedMatrix(const DeviceMatrix& matrix, SessionMemory& memory, const Stream& stream)
      : copy_(memory, matrix.values.empty() ? matrix.rows * matrix.columns : 0, "widened weights"), values_(matrix.values.data()) {
    if (copy_.empty()) return;
    check(widen(matrix.compute, matrix.narrowed.data(), copy_.data(), copy_.size(), stream.get()), "widening weights");
    values_ = copy_.data();
  }

  // Device [rows, columns].
  const float* values() const noexcept { return values_; }

 private:
  DeviceBuffer<float> copy_;
  const float* values_;
};

}  // namespace secateur::gpu

#include "cuda/kernels/mask.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 256;
// Columns whose bits one block of pack_mask holds.
constexpr std::size_t kSliceColumns = 8192;

struct MaskBits {
  unsigned words[kSliceColumns / 32];
};

template <class Weight>
__global__ void __launch_bounds__(kThreads) apply_mask_kernel(Weight* weights, const std::uint8_t* mask, std::size_t columns) {
  const std::size_t row = blockIdx.x;
  const std::size_t row_bytes = (columns + 7) / 8;
  for (std::size_t column = threadIdx.x; column < columns; column += kThreads) {
    if (((mask[row * row_bytes + column / 8] >> (column % 8)) & 1U) != 0) weights[row * columns + column] = Weight{};
  }
}

__global__ void __launch_bounds__(kThreads)
    copy_masked_kernel(const float* weights, const std::uint8_t* mask, const std::uint8_t* marked, std::size_t columns, float* values) {
  const std::size_t row = blockIdx.x;
  if (marked != nullptr && marked[row] == 0) return;
  const std::size_t row_bytes = (columns + 7) / 8;
  for (std::size_t column = threadIdx.x; column < columns; column += kThreads) {
    const bool is_dropped = ((mask[row * row_bytes + column / 8] >> (column % 8)) & 1U) != 0;
    values[row * columns + column] = is_dropped ? 0.0F : weights[row * columns + column];
  }
}

// A block per row, which goes through the columns slice by slice: bits of a byte come from anywhere in the order.
__global__ void __launch_bounds__(kThreads)
    pack_mask_kernel(const std::uint32_t* orders, const std::int32_t* counts, std::size_t columns, std::uint8_t* mask) {
  SECATEUR_SHARED(MaskBits, bits);
  const std::size_t row = blockIdx.x;
  const std::uint32_t* const order = orders + row * columns;
  const auto count = static_cast<std::size_t>(counts[row]);
  const std::size_t row_bytes = (columns + 7) / 8;
  for (std::size_t begin = 0; begin < columns; begin += kSliceColumns) {
    const std::size_t end = begin + kSliceColumns < columns ? begin + kSliceColumns : columns;
    for (std::size_t word = threadIdx.x; word < kSliceColumns / 32; word += kThreads) bits.words[word] = 0;
    __syncthreads();
    for (std::size_t j = threadIdx.x; j < count; j += kThreads) {
      const std::size_t column = order[j];
      if (column >= begin && column < end) atomicOr(&bits.words[(column - begin) / 32], 1U << ((column - begin) % 32));
    }
    __syncthreads();
    const std::size_t bytes = (end - begin + 7) / 8;
    for (std::size_t byte = threadIdx.x; byte < bytes; byte += kThreads) {
      mask[row * row_bytes + begin / 8 + byte] = static_cast<std::uint8_t>(bits.words[byte / 4] >> (byte % 4 * 8));
    }
    __syncthreads();
  }
}

}  // namespace

cudaError_t apply_mask(float* weights, const std::uint8_t* mask, std::size_t rows, std::size_t columns, cudaStream_t stream) {
  if (rows == 0 || columns == 0) return cudaSuccess;
  return launch(apply_mask_kernel<float>, dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, stream, weights, mask, columns);
}

cudaError_t apply_mask(std::uint16_t* weights, const std::uint8_t* mask, std::size_t rows, std::size_t columns, cudaStream_t stream) {
  if (rows == 0 || columns == 0) return cudaSuccess;
  return launch(apply_mask_kernel<std::uint16_t>, dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, stream, weights, mask, columns);
}

cudaError_t copy_masked(const float* weights, const std::uint8_t* mask, const std::uint8_t* marked, std::size_t rows, std::size_t columns,
                        float* values, cudaStream_t stream) {
  if (rows == 0 || columns == 0) return cudaSuccess;
  return launch(copy_masked_kernel, dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, stream, weights, mask, marked, columns, values);
}

cudaError_t pack_mask(const std::uint32_t* orders, const std::int32_t* counts, std::size_t rows, std::size_t columns, std::uint8_t* mask,
                      cudaStream_t stream) {
  if (rows == 0 || columns == 0) return cudaSuccess;
  return launch(pack_mask_kernel, dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, stream, orders, counts, columns, mask);
}

}  // namespace secateur::gpu

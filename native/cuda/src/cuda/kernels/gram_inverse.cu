#include "cuda/kernels/gram_inverse.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 256;

// A block per row.
__global__ void __launch_bounds__(kThreads) widen_kernel(WidenGramTask task) {
  const std::size_t row = blockIdx.x;
  const float own_norm = task.norms == nullptr ? 1.0F : task.norms[row];
  for (std::size_t column = threadIdx.x; column < task.columns; column += kThreads) {
    const std::size_t place = row * task.columns + column;
    float value = task.gram[place];
    if (task.norms != nullptr) value /= own_norm * task.norms[column];
    task.result[place] = static_cast<double>(row == column ? value + task.added : value);
  }
}

constexpr unsigned kTile = 32;

struct TransposedTile {
  // A padded row keeps the banks apart.
  float values[kTile][kTile + 1];
};

__device__ inline float element_of(const float* matrix, std::size_t columns, std::size_t row, std::size_t column) {
  return matrix[row * columns + column];
}
// Of an upper factor.
__device__ inline float element_of(const double* matrix, std::size_t columns, std::size_t row, std::size_t column) {
  return row <= column ? static_cast<float>(matrix[row * columns + column]) : 0.0F;
}

// A block per tile.
template <class Value>
__global__ void __launch_bounds__(kThreads) transpose_kernel(const Value* matrix, std::size_t columns, std::size_t tiles, float* result) {
  SECATEUR_SHARED(TransposedTile, tile);
  const std::size_t first_row = blockIdx.x / tiles * kTile;
  const std::size_t first_column = blockIdx.x % tiles * kTile;
  const unsigned lane = threadIdx.x % kTile;
  for (unsigned i = threadIdx.x / kTile; i < kTile; i += kThreads / kTile) {
    if (first_row + i < columns && first_column + lane < columns)
      tile.values[i][lane] = element_of(matrix, columns, first_row + i, first_column + lane);
  }
  __syncthreads();
  for (unsigned i = threadIdx.x / kTile; i < kTile; i += kThreads / kTile) {
    if (first_column + i < columns && first_row + lane < columns)
      result[(first_column + i) * columns + first_row + lane] = tile.values[lane][i];
  }
}

template <class Value>
cudaError_t launch_transpose(const Value* matrix, std::size_t columns, float* result, cudaStream_t stream) {
  if (columns == 0) return cudaSuccess;
  const std::size_t tiles = (columns + kTile - 1) / kTile;
  return launch(transpose_kernel<Value>, dim3(static_cast<unsigned>(tiles * tiles)), dim3(kThreads), 0, stream, matrix, columns, tiles,
                result);
}

}  // namespace

cudaError_t widen_gram(const WidenGramTask& task, cudaStream_t stream) {
  if (task.columns == 0) return cudaSuccess;
  return launch(widen_kernel, dim3(static_cast<unsigned>(task.columns)), dim3(kThreads), 0, stream, task);
}

cudaError_t transpose_factor(const double* factor, std::size_t columns, float* result, cudaStream_t stream) {
  return launch_transpose(factor, columns, result, stream);
}

cudaError_t transpose(const float* matrix, std::size_t columns, float* result, cudaStream_t stream) {
  return launch_transpose(matrix, columns, result, stream);
}

}  // namespace secateur::gpu

#include "cuda/kernels/matrix_product_f32.h"

#include "cuda/gpu.h"

namespace secateur::gpu {
namespace {

// A block makes kTile x kTile results, a thread kSide x kSide of them, from kDepth terms at a time.
constexpr unsigned kTile = 128;
constexpr unsigned kDepth = 16;
constexpr unsigned kSide = 8;
constexpr unsigned kThreads = kTile / kSide * (kTile / kSide);
// Rows of a tile lie across the banks.
constexpr unsigned kPadding = 4;

struct Tiles {
  float left[kDepth][kTile + kPadding];
  float right[kDepth][kTile + kPadding];
};

__device__ void load_tile(const float* matrix, std::size_t rows, std::size_t columns, std::size_t first_row, std::size_t first_column,
                          float (&tile)[kDepth][kTile + kPadding]) {
  for (unsigned i = threadIdx.x; i < kTile * kDepth; i += kThreads) {
    const unsigned row = i / kDepth;
    const unsigned term = i % kDepth;
    const bool inside = first_row + row < rows && first_column + term < columns;
    tile[term][row] = inside ? matrix[(first_row + row) * columns + first_column + term] : 0.0F;
  }
}

__global__ void __launch_bounds__(kThreads) multiply_kernel(MatrixProductF32 task) {
  SECATEUR_SHARED(Tiles, tiles);
  const std::size_t first_row = std::size_t{blockIdx.x} * kTile;
  const std::size_t first_column = std::size_t{blockIdx.y} * kTile;
  // Two quarters of four neighbours each, so that a warp's reads of a tile fall on all banks.
  const unsigned row = threadIdx.x / (kTile / kSide) * (kSide / 2);
  const unsigned column = threadIdx.x % (kTile / kSide) * (kSide / 2);
  float sums[kSide][kSide] = {};
  for (std::size_t begin = 0; begin < task.k; begin += kDepth) {
    load_tile(task.left, task.m, task.k, first_row, begin, tiles.left);
    load_tile(task.right, task.n, task.k, first_column, begin, tiles.right);
    __syncthreads();
#pragma unroll
    for (unsigned term = 0; term < kDepth; ++term) {
      float left[kSide];
      float right[kSide];
#pragma unroll
      for (unsigned i = 0; i < kSide; ++i) {
        left[i] = tiles.left[term][row + i % (kSide / 2) + i / (kSide / 2) * (kTile / 2)];
        right[i] = tiles.right[term][column + i % (kSide / 2) + i / (kSide / 2) * (kTile / 2)];
      }
#pragma unroll
      for (unsigned i = 0; i < kSide; ++i) {
#pragma unroll
        for (unsigned j = 0; j < kSide; ++j) sums[i][j] = fmaf(left[i], right[j], sums[i][j]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (unsigned i = 0; i < kSide; ++i) {
    const std::size_t m = first_row + row + i % (kSide / 2) + i / (kSide / 2) * (kTile / 2);
#pragma unroll
    for (unsigned j = 0; j < kSide; ++j) {
      const std::size_t n = first_column + column + j % (kSide / 2) + j / (kSide / 2) * (kTile / 2);
      if (m < task.m && n < task.n) task.result[m * task.n + n] = task.bias == nullptr ? sums[i][j] : sums[i][j] + task.bias[n];
    }
  }
}

}  // namespace

cudaError_t matrix_product_f32(const MatrixProductF32& task, cudaStream_t stream) {
  if (task.m == 0 || task.n == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>((task.m + kTile - 1) / kTile), static_cast<unsigned>((task.n + kTile - 1) / kTile));
  return launch(multiply_kernel, grid, dim3(kThreads), 0, stream, task);
}

}  // namespace secateur::gpu

#include "cuda/kernels/matrix_product_bf16.h"
#include "cuda/tensor_core.h"

namespace secateur::gpu {
namespace {

// A block of 2 x 4 warps makes kTile x kTile results; a warp 64 x 32 of them, from fragments of 16 x 8.
constexpr unsigned kTile = 128;
constexpr unsigned kDepth = 32;
constexpr unsigned kWarpRows = 64;
constexpr unsigned kWarpColumns = 32;
constexpr unsigned kRowFragments = kWarpRows / 16;
constexpr unsigned kColumnFragments = kWarpColumns / 8;
constexpr unsigned kThreads = kTile / kWarpRows * (kTile / kWarpColumns) * kWarpLanes;
// Tiles on their way: one is multiplied while the others arrive.
constexpr unsigned kStages = 3;
// 16 bytes.
constexpr unsigned kChunk = 8;
constexpr unsigned kRowChunks = kDepth / kChunk;

struct Stage {
  bfloat16 left[kTile * kDepth];
  bfloat16 right[kTile * kDepth];
};

// Where a chunk of a row lies. Rows are 64 bytes; the swizzle puts the same chunk of eight neighbouring rows on different banks.
__device__ unsigned place_of(unsigned row, unsigned chunk) { return row * kDepth + (chunk ^ (row / 2 % kRowChunks)) * kChunk; }

// Aligned: rows begin on 16 bytes, so chunks are copied whole while others are multiplied.
template <bool Aligned>
__device__ void load_tile(const bfloat16* matrix, std::size_t rows, std::size_t columns, std::size_t first_row, std::size_t first_column,
                          bfloat16* tile) {
  for (unsigned i = threadIdx.x; i < kTile * kRowChunks; i += kThreads) {
    const unsigned row = i / kRowChunks;
    const unsigned chunk = i % kRowChunks;
    const std::size_t column = first_column + chunk * kChunk;
    const std::size_t left = first_row + row < rows && column < columns ? columns - column : 0;
    const unsigned count = left < kChunk ? static_cast<unsigned>(left) : kChunk;
    const bfloat16* const source = count > 0 ? matrix + (first_row + row) * columns + column : matrix;
    bfloat16* const target = tile + place_of(row, chunk);
    if (Aligned) {
      copy_async_16(target, source, count * static_cast<unsigned>(sizeof(bfloat16)));
    } else {
      for (unsigned j = 0; j < kChunk; ++j) target[j] = j < count ? source[j] : bfloat16{0};
    }
  }
}

template <bool Aligned>
__device__ void load_stage(const MatrixProductBF16& task, std::size_t first_row, std::size_t first_column, std::size_t begin,
                           Stage& stage) {
  if (begin < task.k) {
    load_tile<Aligned>(task.left, task.m, task.k, first_row, begin, stage.left);
    load_tile<Aligned>(task.right, task.n, task.k, first_column, begin, stage.right);
  }
  // An empty group too, so that the number of groups tells what has arrived.
  copy_async_commit();
}

template <bool Aligned>
__global__ void __launch_bounds__(kThreads) multiply_kernel(MatrixProductBF16 task) {
  SECATEUR_DYNAMIC_SHARED(Stage, stages);
  const std::size_t first_row = std::size_t{blockIdx.x} * kTile;
  const std::size_t first_column = std::size_t{blockIdx.y} * kTile;
  const unsigned lane = threadIdx.x % kWarpLanes;
  const unsigned warp = threadIdx.x / kWarpLanes;
  const unsigned warp_row = warp / (kTile / kWarpColumns) * kWarpRows;
  const unsigned warp_column = warp % (kTile / kWarpColumns) * kWarpColumns;
  float sums[kRowFragments][kColumnFragments][4] = {};
  for (unsigned stage = 0; stage + 1 < kStages; ++stage) {
    load_stage<Aligned>(task, first_row, first_column, std::size_t{stage} * kDepth, stages[stage]);
  }
  const std::size_t tiles = (task.k + kDepth - 1) / kDepth;
  for (std::size_t tile = 0; tile < tiles; ++tile) {
    copy_async_wait<static_cast<int>(kStages) - 2>();
    // Everybody's copies have arrived, and the stage that is filled next is no longer read.
    __syncthreads();
    const std::size_t ahead = tile + kStages - 1;
    load_stage<Aligned>(task, first_row, first_column, ahead * kDepth, stages[ahead % kStages]);
    const Stage& stage = stages[tile % kStages];
#pragma unroll
    for (unsigned step = 0; step < kDepth / 16; ++step) {
      unsigned left[kRowFragments][4];
      unsigned right[kColumnFragments][2];
#pragma unroll
      for (unsigned i = 0; i < kRowFragments; ++i) {
        load_matrices(left[i], stage.left + place_of(warp_row + i * 16 + lane % 16, step * 2 + lane / 16));
      }
#pragma unroll
      for (unsigned j = 0; j < kColumnFragments; j += 2) {
        unsigned pair[4];
        load_matrices(pair, stage.right + place_of(warp_column + j * 8 + lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2));
        right[j][0] = pair[0];
        right[j][1] = pair[1];
        right[j + 1][0] = pair[2];
        right[j + 1][1] = pair[3];
      }
#pragma unroll
      for (unsigned i = 0; i < kRowFragments; ++i) {
#pragma unroll
        for (unsigned j = 0; j < kColumnFragments; ++j) multiply_accumulate_bf16(sums[i][j], left[i], right[j]);
      }
    }
  }
#pragma unroll
  for (unsigned i = 0; i < kRowFragments; ++i) {
#pragma unroll
    for (unsigned j = 0; j < kColumnFragments; ++j) {
#pragma unroll
      for (unsigned value = 0; value < 4; ++value) {
        const std::size_t m = first_row + warp_row + i * 16 + lane / 4 + value / 2 * 8;
        const std::size_t n = first_column + warp_column + j * 8 + lane % 4 * 2 + value % 2;
        if (m < task.m && n < task.n) {
          task.result[m * task.n + n] = task.bias == nullptr ? sums[i][j][value] : sums[i][j][value] + task.bias[n];
        }
      }
    }
  }
}

}  // namespace

cudaError_t matrix_product_bf16(const MatrixProductBF16& task, cudaStream_t stream) {
  if (task.m == 0 || task.n == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>((task.m + kTile - 1) / kTile), static_cast<unsigned>((task.n + kTile - 1) / kTile));
  const auto is_aligned = [](const bfloat16* matrix) { return reinterpret_cast<std::uintptr_t>(matrix) % 16 == 0; };
  const bool aligned = task.k % kChunk == 0 && is_aligned(task.left) && is_aligned(task.right);
  return launch(aligned ? multiply_kernel<true> : multiply_kernel<false>, grid, dim3(kThreads), kStages * sizeof(Stage), stream, task);
}

}  // namespace secateur::gpu

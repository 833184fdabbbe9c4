#include "cuda/kernels/gram_matrix.h"

namespace secateur::gpu {
namespace {

// A block computes a square tile of the result; its threads form a square too, each with every 16th row and column of the tile.
constexpr unsigned kTile = 64;
constexpr unsigned kSquare = 16;
constexpr unsigned kThreads = kSquare * kSquare;
constexpr unsigned kOwn = kTile / kSquare;
// Tokens in shared memory, which are also those whose sum is float32.
constexpr unsigned kTokens = 32;

struct Strips {
  float left[kTokens][kTile];
  float right[kTokens][kTile];
};

// Columns [first_column, first_column + kTile) of tokens [first_token, first_token + kTokens); zeros beyond the inputs.
__device__ void load_strip(float (&strip)[kTokens][kTile], const GramMatrixTask& task, std::size_t first_token, std::size_t first_column) {
  const std::size_t column = first_column + threadIdx.x % kTile;
  for (unsigned i = threadIdx.x / kTile; i < kTokens; i += kThreads / kTile) {
    const std::size_t token = first_token + i;
    strip[i][threadIdx.x % kTile] = token < task.tokens && column < task.columns ? task.inputs[token * task.columns + column] : 0.0F;
  }
}

__global__ void __launch_bounds__(kThreads) add_tile(GramMatrixTask task, std::size_t tiles) {
  SECATEUR_SHARED(Strips, strips);
  const std::size_t first_row = blockIdx.x / tiles * kTile;
  const std::size_t first_column = blockIdx.x % tiles * kTile;
  // The lower half mirrors the upper one.
  if (first_row > first_column) return;
  const unsigned own_row = threadIdx.x / kSquare;
  const unsigned own_column = threadIdx.x % kSquare;

  double sums[kOwn][kOwn] = {};
  for (std::size_t token = 0; token < task.tokens; token += kTokens) {
    load_strip(strips.left, task, token, first_row);
    load_strip(strips.right, task, token, first_column);
    __syncthreads();
    float few[kOwn][kOwn] = {};
#pragma unroll 4
    for (unsigned t = 0; t < kTokens; ++t) {
      float right[kOwn];
#pragma unroll
      for (unsigned j = 0; j < kOwn; ++j) right[j] = strips.right[t][own_column + j * kSquare];
#pragma unroll
      for (unsigned i = 0; i < kOwn; ++i) {
        const float left = strips.left[t][own_row + i * kSquare];
#pragma unroll
        for (unsigned j = 0; j < kOwn; ++j) few[i][j] = fmaf(left, right[j], few[i][j]);
      }
    }
#pragma unroll
    for (unsigned i = 0; i < kOwn; ++i) {
#pragma unroll
      for (unsigned j = 0; j < kOwn; ++j) sums[i][j] += static_cast<double>(few[i][j]);
    }
    // Everyone is done with the strips before they are filled again.
    __syncthreads();
  }

#pragma unroll
  for (unsigned i = 0; i < kOwn; ++i) {
    const std::size_t row = first_row + own_row + i * kSquare;
#pragma unroll
    for (unsigned j = 0; j < kOwn; ++j) {
      const std::size_t column = first_column + own_column + j * kSquare;
      if (row > column || column >= task.columns) continue;
      const double sum = task.sums[row * task.columns + column] + sums[i][j];
      task.sums[row * task.columns + column] = sum;
      task.sums[column * task.columns + row] = sum;
    }
  }
}

}  // namespace

cudaError_t add_gram_matrix(const GramMatrixTask& task, cudaStream_t stream) {
  if (task.tokens == 0 || task.columns == 0) return cudaSuccess;
  const std::size_t tiles = (task.columns + kTile - 1) / kTile;
  return launch(add_tile, dim3(static_cast<unsigned>(tiles * tiles)), dim3(kThreads), 0, stream, task, tiles);
}

}  // namespace secateur::gpu

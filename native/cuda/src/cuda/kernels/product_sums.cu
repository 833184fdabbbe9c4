#include "cuda/kernels/product_sums.h"

namespace secateur::gpu {
namespace {

// A block computes a square tile of the result; its threads form a square too, each with every 16th row and column of the tile.
constexpr unsigned kTile = 64;
constexpr unsigned kSquare = 16;
constexpr unsigned kThreads = kSquare * kSquare;
constexpr unsigned kOwn = kTile / kSquare;
// Tokens in shared memory, which are also those whose sum is float32.
constexpr unsigned kTokens = 32;
static_assert(kProductTile % kTile == 0, "a block's sums lie in one tile of the layout");

struct Strips {
  float left[kTokens][kTile];
  float right[kTokens][kTile];
};

// Columns [first_column, first_column + kTile) of tokens [first_token, first_token + kTokens); zeros beyond the values [tokens, columns].
__device__ void load_strip(float (&strip)[kTokens][kTile], const float* values, std::size_t tokens, std::size_t columns,
                           std::size_t first_token, std::size_t first_column) {
  const std::size_t column = first_column + threadIdx.x % kTile;
  for (unsigned i = threadIdx.x / kTile; i < kTokens; i += kThreads / kTile) {
    const std::size_t token = first_token + i;
    strip[i][threadIdx.x % kTile] = token < tokens && column < columns ? values[token * columns + column] : 0.0F;
  }
}

__global__ void __launch_bounds__(kThreads) add_tile(ProductSumsTask task, std::size_t column_tiles) {
  SECATEUR_SHARED(Strips, strips);
  const std::size_t first_row = blockIdx.x / column_tiles * kTile;
  const std::size_t first_column = blockIdx.x % column_tiles * kTile;
  // The layout has no tiles below the diagonal.
  if (task.shape.symmetric && first_row / kProductTile > first_column / kProductTile) return;
  const unsigned own_row = threadIdx.x / kSquare;
  const unsigned own_column = threadIdx.x % kSquare;

  double sums[kOwn][kOwn] = {};
  for (std::size_t token = 0; token < task.tokens; token += kTokens) {
    load_strip(strips.left, task.left, task.tokens, task.shape.rows, token, first_row);
    load_strip(strips.right, task.right, task.tokens, task.shape.columns, token, first_column);
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

  const ProductTile tile = product_tile(task.shape, first_row / kProductTile, first_column / kProductTile);
  double* const high = task.sums + tile.offset;
  double* const low = high + tile.size();
#pragma unroll
  for (unsigned i = 0; i < kOwn; ++i) {
    const std::size_t row = first_row - tile.first_row + own_row + i * kSquare;
#pragma unroll
    for (unsigned j = 0; j < kOwn; ++j) {
      const std::size_t column = first_column - tile.first_column + own_column + j * kSquare;
      if (row >= tile.rows || column >= tile.columns) continue;
      const std::size_t place = row * tile.columns + column;
      add_to_sum(high[place], low[place], sums[i][j]);
    }
  }
}

}  // namespace

cudaError_t add_product_sums(const ProductSumsTask& task, cudaStream_t stream) {
  if (task.tokens == 0 || product_values(task.shape) == 0) return cudaSuccess;
  const std::size_t row_tiles = (task.shape.rows + kTile - 1) / kTile;
  const std::size_t column_tiles = (task.shape.columns + kTile - 1) / kTile;
  return launch(add_tile, dim3(static_cast<unsigned>(row_tiles * column_tiles)), dim3(kThreads), 0, stream, task, column_tiles);
}

}  // namespace secateur::gpu

#include "cuda/kernels/sparsegpt.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kColumns = kSparseGptColumns;
// Columns of a lane: lane, lane + 32, …
constexpr unsigned kPerLane = kColumns / kWarpLanes;
constexpr unsigned kWarps = 16;
constexpr unsigned kPruneThreads = kWarps * kWarpLanes;

struct PruneMemory {
  // U of the block of columns, zero below the diagonal.
  float factor[kColumns][kColumns];
  unsigned keys[kWarps][kColumns];
};

__device__ inline std::int64_t dropped_before(std::int64_t count, std::size_t column, std::size_t columns) {
  return count * static_cast<std::int64_t>(column) / static_cast<std::int64_t>(columns);
}

__device__ inline void load_factor(PruneMemory& memory, const SparseGptTask& task, std::size_t first_column) {
  for (unsigned i = threadIdx.x; i < kColumns * kColumns; i += kPruneThreads) {
    const std::size_t row = first_column + i / kColumns;
    const std::size_t column = first_column + i % kColumns;
    const bool inside = row <= column && column < task.columns;
    memory.factor[i / kColumns][i % kColumns] = inside ? static_cast<float>(task.factor[row * task.columns + column]) : 0.0F;
  }
}

// A warp per row: chooses what the row drops of the block of columns from first_column on, updates the block's weights and notes the errors
// that the columns to the right of the block have to make up for.
// Where `chosen` is given, [rows, ceil(columns of the block / 8)], that is what the row drops.
__global__ void __launch_bounds__(kPruneThreads) prune_block(SparseGptTask task, std::size_t first_column, const std::uint8_t* chosen) {
  SECATEUR_DYNAMIC_SHARED(PruneMemory, memory);
  load_factor(*memory, task, first_column);
  __syncthreads();
  const unsigned lane = threadIdx.x % kWarpLanes;
  const unsigned warp = threadIdx.x / kWarpLanes;
  const std::size_t row = std::size_t{blockIdx.x} * kWarps + warp;
  // Whole warps leave together.
  if (row >= task.rows) return;

  const std::size_t end_column = first_column + kColumns < task.columns ? first_column + kColumns : task.columns;
  const std::int64_t count = chosen == nullptr ? task.counts[row] : 0;
  const std::size_t chosen_bytes = (end_column - first_column + 7) / 8;
  const auto drop =
      static_cast<unsigned>(dropped_before(count, end_column, task.columns) - dropped_before(count, first_column, task.columns));

  float weights[kPerLane];
  float errors[kPerLane] = {};
  unsigned dropped[kPerLane];
#pragma unroll
  for (unsigned q = 0; q < kPerLane; ++q) {
    const unsigned i = q * kWarpLanes + lane;
    const std::size_t column = first_column + i;
    const bool inside = column < end_column;
    weights[q] = inside && task.dead[column] == 0 ? task.weights[row * task.columns + column] : 0.0F;
    const float ratio = inside ? weights[q] / memory->factor[i][i] : 0.0F;
    // Scores are not negative: they order like their bits. Columns outside come last.
    memory->keys[warp][i] = inside ? __float_as_uint(ratio * ratio) : kAllLanes;
  }
  __syncwarp(kAllLanes);
#pragma unroll
  for (unsigned q = 0; q < kPerLane; ++q) {
    const unsigned own = q * kWarpLanes + lane;
    const unsigned key = memory->keys[warp][own];
    unsigned rank = 0;
    for (unsigned i = 0; i < kColumns; ++i) {
      const unsigned other = memory->keys[warp][i];
      if (other < key || (other == key && i < own)) ++rank;
    }
    bool drops = rank < drop;
    if (chosen != nullptr) {
      drops = first_column + own < end_column && ((chosen[row * chosen_bytes + own / 8] >> (own % 8)) & 1U) != 0;
    }
    dropped[q] = __ballot_sync(kAllLanes, drops);
  }

#pragma unroll
  for (unsigned q = 0; q < kPerLane; ++q) {
    // The same in all lanes: only dropped columns leave an error.
    for (unsigned left = dropped[q]; left != 0; left &= left - 1) {
      const unsigned source = static_cast<unsigned>(__ffs(static_cast<int>(left))) - 1;
      const unsigned i = q * kWarpLanes + source;
      const float error = __shfl_sync(kAllLanes, weights[q], static_cast<int>(source)) / memory->factor[i][i];
      if (lane == source) errors[q] = error;
#pragma unroll
      for (unsigned other = q; other < kPerLane; ++other) {
        weights[other] = fmaf(-error, memory->factor[i][other * kWarpLanes + lane], weights[other]);
      }
    }
  }

  const std::size_t row_bytes = (task.columns + 7) / 8;
#pragma unroll
  for (unsigned q = 0; q < kPerLane; ++q) {
    const unsigned i = q * kWarpLanes + lane;
    const std::size_t column = first_column + i;
    const bool is_dropped = ((dropped[q] >> lane) & 1U) != 0;
    if (column < end_column) task.weights[row * task.columns + column] = is_dropped ? 0.0F : weights[q];
    task.errors[row * kColumns + i] = errors[q];
    const std::size_t byte = (first_column + q * kWarpLanes) / 8 + lane;
    if (lane < kWarpLanes / 8 && byte < row_bytes) task.mask[row * row_bytes + byte] = static_cast<std::uint8_t>(dropped[q] >> (lane * 8));
  }
}

// A block per row, a thread per column of the block of columns.
__global__ void __launch_bounds__(kColumns) score_block(SparseGptTask task, std::size_t first_column, float* scores) {
  const std::size_t width = task.columns - first_column < kColumns ? task.columns - first_column : kColumns;
  if (threadIdx.x >= width) return;
  const std::size_t column = first_column + threadIdx.x;
  const float weight = task.dead[column] == 0 ? task.weights[blockIdx.x * task.columns + column] : 0.0F;
  const float ratio = weight / static_cast<float>(task.factor[column * task.columns + column]);
  scores[blockIdx.x * width + threadIdx.x] = ratio * ratio;
}

constexpr unsigned kTile = 64;
constexpr unsigned kSquare = 16;
constexpr unsigned kUpdateThreads = kSquare * kSquare;
constexpr unsigned kOwn = kTile / kSquare;
constexpr unsigned kDepth = 16;

struct UpdateMemory {
  // Padded so that sixteen rows of two neighbours fall on all banks.
  float errors[kDepth][kTile + 2];
  float factor[kDepth][kTile];
};

// weights[:, c] -= errors · U[block, c] for the columns c right of the block. A block of threads per tile of weights.
__global__ void __launch_bounds__(kUpdateThreads) update_right(SparseGptTask task, std::size_t first_column, std::size_t column_tiles) {
  SECATEUR_SHARED(UpdateMemory, memory);
  const std::size_t row_begin = blockIdx.x / column_tiles * kTile;
  const std::size_t column_begin = first_column + kColumns + blockIdx.x % column_tiles * kTile;
  const unsigned own_row = threadIdx.x / kSquare;
  const unsigned own_column = threadIdx.x % kSquare;
  float sums[kOwn][kOwn] = {};
  for (unsigned begin = 0; begin < kColumns; begin += kDepth) {
    for (unsigned i = threadIdx.x; i < kTile * kDepth; i += kUpdateThreads) {
      const std::size_t row = row_begin + i / kDepth;
      memory.errors[i % kDepth][i / kDepth] = row < task.rows ? task.errors[row * kColumns + begin + i % kDepth] : 0.0F;
      const std::size_t column = column_begin + i % kTile;
      memory.factor[i / kTile][i % kTile] =
          column < task.columns ? static_cast<float>(task.factor[(first_column + begin + i / kTile) * task.columns + column]) : 0.0F;
    }
    __syncthreads();
#pragma unroll
    for (unsigned t = 0; t < kDepth; ++t) {
      float factor[kOwn];
#pragma unroll
      for (unsigned j = 0; j < kOwn; ++j) factor[j] = memory.factor[t][own_column + j * kSquare];
#pragma unroll
      for (unsigned i = 0; i < kOwn; ++i) {
        const float error = memory.errors[t][own_row + i * kSquare];
#pragma unroll
        for (unsigned j = 0; j < kOwn; ++j) sums[i][j] = fmaf(error, factor[j], sums[i][j]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (unsigned i = 0; i < kOwn; ++i) {
    const std::size_t row = row_begin + own_row + i * kSquare;
#pragma unroll
    for (unsigned j = 0; j < kOwn; ++j) {
      const std::size_t column = column_begin + own_column + j * kSquare;
      if (row < task.rows && column < task.columns) task.weights[row * task.columns + column] -= sums[i][j];
    }
  }
}

}  // namespace

cudaError_t prune_with_sparsegpt(const SparseGptTask& task, cudaStream_t stream) {
  for (std::size_t first = 0; first < task.columns; first += kColumns) {
    const cudaError_t error = prune_sparsegpt_block(task, first, nullptr, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t score_sparsegpt_block(const SparseGptTask& task, std::size_t first, float* scores, cudaStream_t stream) {
  if (task.rows == 0) return cudaSuccess;
  return launch(score_block, dim3(static_cast<unsigned>(task.rows)), dim3(kColumns), 0, stream, task, first, scores);
}

cudaError_t prune_sparsegpt_block(const SparseGptTask& task, std::size_t first, const std::uint8_t* chosen, cudaStream_t stream) {
  if (task.rows == 0) return cudaSuccess;
  const auto row_blocks = static_cast<unsigned>((task.rows + kWarps - 1) / kWarps);
  const cudaError_t error = launch(prune_block, dim3(row_blocks), dim3(kPruneThreads), sizeof(PruneMemory), stream, task, first, chosen);
  if (error != cudaSuccess || first + kColumns >= task.columns) return error;
  const std::size_t row_tiles = (task.rows + kTile - 1) / kTile;
  const std::size_t column_tiles = (task.columns - first - kColumns + kTile - 1) / kTile;
  return launch(update_right, dim3(static_cast<unsigned>(row_tiles * column_tiles)), dim3(kUpdateThreads), 0, stream, task, first,
                column_tiles);
}

}  // namespace secateur::gpu

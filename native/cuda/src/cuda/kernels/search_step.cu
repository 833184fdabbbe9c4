#include "cpu/allocation/search_arithmetic.h"
#include "cuda/kernels/search_step.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kMeasuringThreads = 128;

__global__ void __launch_bounds__(kMeasuringThreads) measure_rows_kernel(RowCurves curves, DeviceCandidate candidate) {
  const std::size_t row = std::size_t{blockIdx.x} * kMeasuringThreads + threadIdx.x;
  if (row >= curves.rows) return;
  const std::size_t count = allocation::dropped_count(curves.columns, candidate.sparsities[row]);
  const OutputProducts products =
      allocation::products_at(curves.points[row * (curves.columns + 1) + count], curves.dense_squared_norms[row]);
  candidate.products[row] = products;
  candidate.row_qualities[row] = allocation::cosine(products);
}

constexpr unsigned kThreads = 256;
constexpr unsigned kWarps = kThreads / kWarpLanes;
// Sums over rows are added up in row order, so that each has one lane of the first warp to itself. The other warps fetch what is added
// next, a thread a row.
constexpr unsigned kTileRows = kThreads - kWarpLanes;
constexpr unsigned kSums = 4;
static_assert(allocation::kSumStrands == kWarpLanes, "a lane adds up a strand");

struct SumTile {
  // Of the three products and the move; rows lie apart from each other's banks.
  double values[kSums][kTileRows + 1];
};

struct StepMemory {
  SumTile tiles[2];
  double lowest[kWarps];
  double highest[kWarps];
  double sums[kSums];
  float strand_sums[kWarpLanes];
  float mean_sparsity;
};

struct QualityRange {
  double lowest;
  double highest;
};

// In every thread of the block.
__device__ QualityRange range_of(const double* qualities, std::size_t rows, StepMemory& shared) {
  QualityRange range{qualities[0], qualities[0]};
  const auto include = [&](double lowest, double highest) {
    if (lowest < range.lowest) range.lowest = lowest;
    if (highest > range.highest) range.highest = highest;
  };
  for (std::size_t row = threadIdx.x; row < rows; row += kThreads) include(qualities[row], qualities[row]);
  for (int distance = 16; distance > 0; distance /= 2) {
    const double lowest = __shfl_xor_sync(kAllLanes, range.lowest, distance);
    include(lowest, __shfl_xor_sync(kAllLanes, range.highest, distance));
  }
  if (threadIdx.x % kWarpLanes == 0) {
    shared.lowest[threadIdx.x / kWarpLanes] = range.lowest;
    shared.highest[threadIdx.x / kWarpLanes] = range.highest;
  }
  __syncthreads();
  for (unsigned warp = 0; warp < kWarps; ++warp) include(shared.lowest[warp], shared.highest[warp]);
  return range;
}

__device__ void fetch_row(const SearchStepTask& task, const QualityRange& range, std::size_t row, unsigned place, SumTile& tile) {
  const OutputProducts products = task.candidate.products[row];
  const double move = allocation::move_of(task.candidate.row_qualities[row], range.lowest, range.highest, task.learning_rate);
  task.moves[row] = move;
  tile.values[0][place] = products.inner_product;
  tile.values[1][place] = products.dense_squared_norm;
  tile.values[2][place] = products.pruned_squared_norm;
  tile.values[3][place] = move;
}

// Leaves the sums over all rows in shared memory.
__device__ void add_up_rows(const SearchStepTask& task, const QualityRange& range, StepMemory& shared) {
  const bool adds = threadIdx.x < kSums;
  const bool fetches = threadIdx.x >= kWarpLanes;
  const unsigned place = threadIdx.x - kWarpLanes;
  double sum = 0;
  for (std::size_t begin = 0; begin < task.rows; begin += kTileRows) {
    // The tile before this one is added up while this one is fetched.
    SumTile& tile = shared.tiles[begin / kTileRows % 2];
    if (fetches && begin + place < task.rows) fetch_row(task, range, begin + place, place, tile);
    if (adds && begin > 0) {
      const double* const values = shared.tiles[1 - begin / kTileRows % 2].values[threadIdx.x];
#pragma unroll 8
      for (unsigned i = 0; i < kTileRows; ++i) sum += values[i];
    }
    __syncthreads();
  }
  if (adds) {
    const std::size_t last = (task.rows - 1) / kTileRows;
    const double* const values = shared.tiles[last % 2].values[threadIdx.x];
    for (std::size_t i = 0; i < task.rows - last * kTileRows; ++i) sum += values[i];
    shared.sums[threadIdx.x] = sum;
  }
  __syncthreads();
}

// One block for all rows: their sums come one after the other in any case.
__global__ void __launch_bounds__(kThreads) move_rows_kernel(SearchStepTask task) {
  SECATEUR_SHARED(StepMemory, shared);
  const QualityRange range = range_of(task.candidate.row_qualities, task.rows, shared);
  add_up_rows(task, range, shared);
  OutputProducts layer;
  layer.inner_product = shared.sums[0];
  layer.dense_squared_norm = shared.sums[1];
  layer.pruned_squared_norm = shared.sums[2];
  const double quality = allocation::cosine(layer);
  const bool is_best = task.is_first || quality > *task.best_quality;
  const double mean_move = shared.sums[3] / static_cast<double>(task.rows);
  for (std::size_t row = threadIdx.x; row < task.rows; row += kThreads) {
    const float sparsity = task.candidate.sparsities[row];
    if (is_best) task.best_sparsities[row] = sparsity;
    task.next_sparsities[row] = allocation::clipped(allocation::moved(sparsity, task.moves[row], mean_move));
  }
  __syncthreads();
  if (threadIdx.x < kWarpLanes) {
    shared.strand_sums[threadIdx.x] = allocation::strand_sum(task.next_sparsities + threadIdx.x, task.rows / kWarpLanes);
    __syncwarp();
  }
  if (threadIdx.x == 0) {
    *task.quality = quality;
    if (is_best) *task.best_quality = quality;
    const float sum = allocation::sum_of_strands(shared.strand_sums, task.next_sparsities, task.rows);
    shared.mean_sparsity = sum / static_cast<float>(task.rows);
  }
  __syncthreads();
  for (std::size_t row = threadIdx.x; row < task.rows; row += kThreads) {
    task.next_sparsities[row] = allocation::recentred(task.next_sparsities[row], shared.mean_sparsity, task.target);
  }
}

}  // namespace

cudaError_t measure_rows(const RowCurves& curves, const DeviceCandidate& candidate, cudaStream_t stream) {
  if (curves.rows == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((curves.rows + kMeasuringThreads - 1) / kMeasuringThreads);
  return launch(measure_rows_kernel, dim3(blocks), dim3(kMeasuringThreads), 0, stream, curves, candidate);
}

cudaError_t move_rows(const SearchStepTask& task, cudaStream_t stream) {
  if (task.rows == 0) return cudaSuccess;
  return launch(move_rows_kernel, dim3(1), dim3(kThreads), 0, stream, task);
}

}  // namespace secateur::gpu

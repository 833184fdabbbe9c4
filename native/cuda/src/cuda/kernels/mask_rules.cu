#include "cuda/kernels/mask_rules.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kWarps = kThreads / kWarpLanes;

__device__ unsigned key_at(const PatternTask& task, std::size_t row, std::size_t column) {
  const float magnitude = fabsf(task.weights[row * task.columns + column]);
  return __float_as_uint(task.scales == nullptr ? magnitude : magnitude * task.scales[column]);
}

// Whether fewer scores of its group go before it than are dropped.
__device__ bool is_dropped(const PatternTask& task, std::size_t row, std::size_t column) {
  const std::size_t first = column / task.group * task.group;
  const std::size_t end = task.columns < first + task.group ? task.columns : first + task.group;
  const std::size_t dropped = (end - first) * task.dropped / task.group;
  const unsigned own = key_at(task, row, column);
  std::size_t before = 0;
  for (std::size_t other = first; other < end; ++other) {
    const unsigned key = key_at(task, row, other);
    if (key < own || (key == own && other < column)) ++before;
  }
  return before < dropped;
}

// A block per row, a thread per column; the lanes of a warp make four bytes.
__global__ void __launch_bounds__(kThreads) mark_pattern_kernel(PatternTask task) {
  const std::size_t row = blockIdx.x;
  const std::size_t row_bytes = (task.columns + 7) / 8;
  const unsigned lane = threadIdx.x % kWarpLanes;
  for (std::size_t begin = threadIdx.x - lane; begin < task.columns; begin += kThreads) {
    const std::size_t column = begin + lane;
    const bool dropped = column < task.columns && is_dropped(task, row, column);
    const unsigned bits = __ballot_sync(kAllLanes, dropped ? 1 : 0);
    const std::size_t byte = begin / 8 + lane;
    if (lane < sizeof bits && byte < row_bytes) task.mask[row * row_bytes + byte] = static_cast<std::uint8_t>(bits >> (lane * 8));
  }
}

// A warp per row.
__global__ void __launch_bounds__(kThreads) compare_outputs_kernel(const float* dense, const float* pruned, std::size_t rows,
                                                                   std::size_t samples, allocation::OutputProducts* products) {
  const unsigned lane = threadIdx.x % kWarpLanes;
  const std::size_t row = std::size_t{blockIdx.x} * kWarps + threadIdx.x / kWarpLanes;
  if (row >= rows) return;
  double inner = 0;
  double dense_squared = 0;
  double pruned_squared = 0;
  for (std::size_t sample = lane; sample < samples; sample += kWarpLanes) {
    const double y = static_cast<double>(dense[row * samples + sample]);
    const double p = static_cast<double>(pruned[row * samples + sample]);
    inner += y * p;
    dense_squared += y * y;
    pruned_squared += p * p;
  }
  inner = warp_sum(inner);
  dense_squared = warp_sum(dense_squared);
  pruned_squared = warp_sum(pruned_squared);
  if (lane != 0) return;
  products[row].inner_product = inner;
  products[row].dense_squared_norm = dense_squared;
  products[row].pruned_squared_norm = pruned_squared;
}

}  // namespace

cudaError_t mark_pattern(const PatternTask& task, cudaStream_t stream) {
  if (task.group == 0) return cudaErrorInvalidValue;
  if (task.rows == 0 || task.columns == 0) return cudaSuccess;
  return launch(mark_pattern_kernel, dim3(static_cast<unsigned>(task.rows)), dim3(kThreads), 0, stream, task);
}

cudaError_t compare_outputs(const float* dense, const float* pruned, std::size_t rows, std::size_t samples,
                            allocation::OutputProducts* products, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  const dim3 blocks(static_cast<unsigned>((rows + kWarps - 1) / kWarps));
  return launch(compare_outputs_kernel, blocks, dim3(kThreads), 0, stream, dense, pruned, rows, samples, products);
}

}  // namespace secateur::gpu

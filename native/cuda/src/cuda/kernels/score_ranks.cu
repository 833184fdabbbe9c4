#include "cuda/kernels/block_sum.h"
#include "cuda/kernels/score_ranks.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 256;

// A block per row.
__global__ void __launch_bounds__(kThreads) sum_scores_kernel(ScoredWeights scored, double* sums) {
  SECATEUR_SHARED(BlockSums<kThreads>, of_warps);
  const std::size_t row = blockIdx.x;
  double sum = 0;
  for (std::size_t column = threadIdx.x; column < scored.columns; column += kThreads) {
    sum += static_cast<double>(score_at(scored, row, column));
  }
  sum = block_sum(sum, of_warps);
  if (threadIdx.x == 0) sums[row] = sum;
}

// A block per row.
__global__ void __launch_bounds__(kThreads)
    count_keys_kernel(ScoredWeights scored, std::uint32_t lowest, std::uint32_t highest, std::uint32_t* counts) {
  using Counts = BlockSums<kThreads, unsigned>;
  SECATEUR_SHARED(Counts, of_warps);
  const std::size_t row = blockIdx.x;
  unsigned count = 0;
  for (std::size_t column = threadIdx.x; column < scored.columns; column += kThreads) {
    const std::uint32_t key = key_at(scored, row, column);
    if (key >= lowest && key <= highest) ++count;
  }
  count = block_sum(count, of_warps);
  if (threadIdx.x == 0) counts[row] = count;
}

bool is_empty(const ScoredWeights& scored) { return scored.rows == 0 || scored.columns == 0; }

dim3 blocks_of_rows(const ScoredWeights& scored) { return dim3(static_cast<unsigned>(scored.rows)); }

}  // namespace

cudaError_t sum_scores(const ScoredWeights& scored, double* sums, cudaStream_t stream) {
  if (is_empty(scored)) return cudaSuccess;
  return launch(sum_scores_kernel, blocks_of_rows(scored), dim3(kThreads), 0, stream, scored, sums);
}

cudaError_t count_keys(const ScoredWeights& scored, std::uint32_t lowest, std::uint32_t highest, std::uint32_t* counts,
                       cudaStream_t stream) {
  if (is_empty(scored)) return cudaSuccess;
  return launch(count_keys_kernel, blocks_of_rows(scored), dim3(kThreads), 0, stream, scored, lowest, highest, counts);
}

}  // namespace secateur::gpu

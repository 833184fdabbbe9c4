#include "cuda/kernels/block_sum.h"
#include "cuda/kernels/score_ranks.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kWarps = kThreads / kWarpLanes;
constexpr unsigned kDigitBits = 8;
static_assert(kThreads == kScoreDigits, "a thread looks after one digit");

struct WarpCounts {
  unsigned values[kWarps];
};

struct DigitCounts {
  unsigned values[kScoreDigits];
};

__device__ float score_of(float weight, float scale) { return fabsf(weight) * scale; }

__device__ float score_at(const ScoredWeights& scored, std::size_t row, std::size_t column) {
  return score_of(scored.weights[row * scored.columns + column], scored.scales[column]);
}

__device__ std::uint32_t key_at(const ScoredWeights& scored, std::size_t row, std::size_t column) {
  return __float_as_uint(score_at(scored, row, column));
}

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

// A block per part of the rows.
__global__ void __launch_bounds__(kThreads)
    count_digits_kernel(ScoredWeights scored, unsigned shift, std::uint32_t prefix, std::uint32_t* counts) {
  SECATEUR_SHARED(DigitCounts, digits);
  digits.values[threadIdx.x] = 0;
  __syncthreads();
  // Bits above the digit; none for the highest one.
  const std::uint32_t higher = shift + kDigitBits == 32 ? 0 : ~std::uint32_t{0} << (shift + kDigitBits);
  for (std::size_t row = blockIdx.x; row < scored.rows; row += kDigitParts) {
    for (std::size_t column = threadIdx.x; column < scored.columns; column += kThreads) {
      const std::uint32_t key = key_at(scored, row, column);
      if ((key & higher) == prefix) atomicAdd(&digits.values[(key >> shift) % kScoreDigits], 1U);
    }
  }
  __syncthreads();
  counts[blockIdx.x * kScoreDigits + threadIdx.x] = digits.values[threadIdx.x];
}

// A block per row, which goes through the columns in their order.
__global__ void __launch_bounds__(kThreads)
    drop_lowest_kernel(ScoredWeights scored, std::uint32_t key, const std::uint32_t* equal, float* rest) {
  SECATEUR_SHARED(WarpCounts, of_warps);
  const std::size_t row = blockIdx.x;
  const unsigned lane = threadIdx.x % kWarpLanes;
  const unsigned warp = threadIdx.x / kWarpLanes;
  const unsigned dropped_equal = equal[row];
  unsigned before = 0;
  for (std::size_t begin = 0; begin < scored.columns; begin += kThreads) {
    const std::size_t column = begin + threadIdx.x;
    const bool inside = column < scored.columns;
    const float weight = inside ? scored.weights[row * scored.columns + column] : 0.0F;
    const std::uint32_t own = inside ? __float_as_uint(score_of(weight, scored.scales[column])) : 0;
    const unsigned same = __ballot_sync(kAllLanes, inside && own == key ? 1 : 0);
    if (lane == 0) of_warps.values[warp] = static_cast<unsigned>(__popc(same));
    __syncthreads();
    unsigned rank = before + static_cast<unsigned>(__popc(same & ((1U << lane) - 1)));
    for (unsigned other = 0; other < kWarps; ++other) {
      if (other < warp) rank += of_warps.values[other];
      before += of_warps.values[other];
    }
    if (inside) {
      const bool dropped = own < key || (own == key && rank < dropped_equal);
      rest[row * scored.columns + column] = dropped ? 0.0F : weight;
    }
    __syncthreads();
  }
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

cudaError_t count_digits(const ScoredWeights& scored, unsigned shift, std::uint32_t prefix, std::uint32_t* counts, cudaStream_t stream) {
  return launch(count_digits_kernel, dim3(static_cast<unsigned>(kDigitParts)), dim3(kThreads), 0, stream, scored, shift, prefix, counts);
}

cudaError_t drop_lowest(const ScoredWeights& scored, std::uint32_t key, const std::uint32_t* equal, float* rest, cudaStream_t stream) {
  if (is_empty(scored)) return cudaSuccess;
  return launch(drop_lowest_kernel, blocks_of_rows(scored), dim3(kThreads), 0, stream, scored, key, equal, rest);
}

}  // namespace secateur::gpu

#include "cuda/kernels/block_sum.h"
#include "cuda/kernels/lowest_scores.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kWarps = kThreads / kWarpLanes;
constexpr unsigned kDigitBits = 8;
constexpr unsigned kHighestShift = 32 - kDigitBits;
static_assert(kThreads == kDigitValues, "a thread looks after one value of a digit");

struct DigitCounts {
  unsigned values[kDigitValues];
};

struct DigitTotals {
  std::uint64_t values[kDigitValues];
};

struct WarpCounts {
  unsigned values[kWarps];
};

// A block per part of the rows. Counts the digits at `shift` of the keys whose higher digits are those that were found.
__global__ void __launch_bounds__(kThreads) count_digits_kernel(ScoredWeights scored, unsigned shift, LowestScores lowest) {
  SECATEUR_SHARED(DigitCounts, counts);
  counts.values[threadIdx.x] = 0;
  __syncthreads();
  const std::uint32_t higher = shift == kHighestShift ? 0 : ~std::uint32_t{0} << (shift + kDigitBits);
  const std::uint32_t prefix = *lowest.key;
  for (std::size_t row = blockIdx.x; row < scored.rows; row += gridDim.x) {
    for (std::size_t column = threadIdx.x; column < scored.columns; column += kThreads) {
      const std::uint32_t key = key_at(scored, row, column);
      if ((key & higher) == prefix) atomicAdd(&counts.values[(key >> shift) % kDigitValues], 1U);
    }
  }
  __syncthreads();
  lowest.digits[blockIdx.x * kDigitValues + threadIdx.x] = counts.values[threadIdx.x];
}

// One block. Adds the digit of the highest of the `count` lowest to the key; how many with that digit are among them is left.
__global__ void __launch_bounds__(kThreads) choose_digit_kernel(unsigned parts, unsigned shift, std::uint64_t count, LowestScores lowest) {
  SECATEUR_SHARED(DigitTotals, totals);
  std::uint64_t total = 0;
  for (std::size_t part = 0; part < parts; ++part) total += lowest.digits[part * kDigitValues + threadIdx.x];
  totals.values[threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.x != 0) return;
  std::uint64_t left = shift == kHighestShift ? count : *lowest.left;
  std::uint32_t digit = 0;
  while (digit + 1 < kDigitValues && left > totals.values[digit]) left -= totals.values[digit++];
  *lowest.key |= digit << shift;
  *lowest.left = left;
}

// A block per row.
__global__ void __launch_bounds__(kThreads) count_equal_kernel(ScoredWeights scored, LowestScores lowest) {
  using Counts = BlockSums<kThreads, unsigned>;
  SECATEUR_SHARED(Counts, of_warps);
  const std::size_t row = blockIdx.x;
  const std::uint32_t highest = *lowest.key;
  unsigned count = 0;
  for (std::size_t column = threadIdx.x; column < scored.columns; column += kThreads) {
    if (key_at(scored, row, column) == highest) ++count;
  }
  count = block_sum(count, of_warps);
  if (threadIdx.x == 0) lowest.equal[row] = count;
}

// One block, a thread for some neighbouring rows: equal scores go to the rows in their order, as long as any are left.
__global__ void __launch_bounds__(kThreads) share_equal_kernel(std::size_t rows, LowestScores lowest) {
  SECATEUR_SHARED(DigitTotals, of_threads);
  const std::size_t rows_of_thread = (rows + kThreads - 1) / kThreads;
  const std::size_t begin = threadIdx.x * rows_of_thread;
  const std::size_t end = begin + rows_of_thread < rows ? begin + rows_of_thread : rows;
  std::uint64_t own = 0;
  for (std::size_t row = begin; row < end; ++row) own += lowest.equal[row];
  of_threads.values[threadIdx.x] = own;
  __syncthreads();
  std::uint64_t before = 0;
  for (unsigned thread = 0; thread < threadIdx.x; ++thread) before += of_threads.values[thread];
  std::uint64_t left = *lowest.left < before ? 0 : *lowest.left - before;
  for (std::size_t row = begin; row < end; ++row) {
    const std::uint32_t equal = lowest.equal[row];
    const std::uint32_t shared = left < equal ? static_cast<std::uint32_t>(left) : equal;
    lowest.equal[row] = shared;
    left -= shared;
  }
}

struct KeepRest {
  float* rest;

  __device__ void operator()(std::size_t row, std::size_t columns, std::size_t column, float weight, bool dropped) const {
    if (column < columns) rest[row * columns + column] = dropped ? 0.0F : weight;
  }
};

struct MarkDropped {
  std::uint8_t* mask;

  // The lanes of a warp make four bytes.
  __device__ void operator()(std::size_t row, std::size_t columns, std::size_t column, float /*weight*/, bool dropped) const {
    const unsigned bits = __ballot_sync(kAllLanes, dropped ? 1 : 0);
    const unsigned lane = threadIdx.x % kWarpLanes;
    const std::size_t row_bytes = (columns + 7) / 8;
    const std::size_t byte = (column - lane) / 8 + lane;
    if (lane < sizeof bits && byte < row_bytes) mask[row * row_bytes + byte] = static_cast<std::uint8_t>(bits >> (lane * 8));
  }
};

// A block per row, which goes through the columns in their order; all its threads tell `visit` of every tile of columns.
template <class Visit>
__global__ void __launch_bounds__(kThreads) visit_lowest_kernel(ScoredWeights scored, LowestScores lowest, Visit visit) {
  SECATEUR_SHARED(WarpCounts, of_warps);
  const std::size_t row = blockIdx.x;
  const unsigned lane = threadIdx.x % kWarpLanes;
  const unsigned warp = threadIdx.x / kWarpLanes;
  const std::uint32_t highest = *lowest.key;
  const unsigned dropped_equal = lowest.equal[row];
  unsigned before = 0;
  for (std::size_t begin = 0; begin < scored.columns; begin += kThreads) {
    const std::size_t column = begin + threadIdx.x;
    const bool inside = column < scored.columns;
    const float weight = inside ? scored.weights[row * scored.columns + column] : 0.0F;
    const std::uint32_t own = inside ? __float_as_uint(score_of(weight, scored, column)) : 0;
    const unsigned same = __ballot_sync(kAllLanes, inside && own == highest ? 1 : 0);
    if (lane == 0) of_warps.values[warp] = static_cast<unsigned>(__popc(same));
    __syncthreads();
    unsigned rank = before + static_cast<unsigned>(__popc(same & ((1U << lane) - 1)));
    for (unsigned other = 0; other < kWarps; ++other) {
      if (other < warp) rank += of_warps.values[other];
      before += of_warps.values[other];
    }
    visit(row, scored.columns, column, weight, inside && (own < highest || (own == highest && rank < dropped_equal)));
    __syncthreads();
  }
}

bool is_empty(const ScoredWeights& scored) { return scored.rows == 0 || scored.columns == 0; }

dim3 blocks_of_rows(const ScoredWeights& scored) { return dim3(static_cast<unsigned>(scored.rows)); }

}  // namespace

cudaError_t find_lowest(const ScoredWeights& scored, std::uint64_t count, EqualScores equal, const LowestScores& lowest,
                        cudaStream_t stream) {
  if (is_empty(scored)) return cudaSuccess;
  const auto parts = static_cast<unsigned>(scored.rows < kDigitParts ? scored.rows : kDigitParts);
  cudaError_t error = cudaMemsetAsync(lowest.key, 0, sizeof(std::uint32_t), stream);
  for (unsigned shift = kHighestShift; error == cudaSuccess; shift -= kDigitBits) {
    error = launch(count_digits_kernel, dim3(parts), dim3(kThreads), 0, stream, scored, shift, lowest);
    if (error == cudaSuccess) error = launch(choose_digit_kernel, dim3(1), dim3(kThreads), 0, stream, parts, shift, count, lowest);
    if (shift == 0) break;
  }
  if (error == cudaSuccess) error = launch(count_equal_kernel, blocks_of_rows(scored), dim3(kThreads), 0, stream, scored, lowest);
  if (error != cudaSuccess || equal == EqualScores::kAll) return error;
  return launch(share_equal_kernel, dim3(1), dim3(kThreads), 0, stream, scored.rows, lowest);
}

cudaError_t drop_lowest(const ScoredWeights& scored, const LowestScores& lowest, float* rest, cudaStream_t stream) {
  if (is_empty(scored)) return cudaSuccess;
  const KeepRest visit{rest};
  return launch(visit_lowest_kernel<KeepRest>, blocks_of_rows(scored), dim3(kThreads), 0, stream, scored, lowest, visit);
}

cudaError_t mark_lowest(const ScoredWeights& scored, const LowestScores& lowest, std::uint8_t* mask, cudaStream_t stream) {
  if (is_empty(scored)) return cudaSuccess;
  const MarkDropped visit{mask};
  return launch(visit_lowest_kernel<MarkDropped>, blocks_of_rows(scored), dim3(kThreads), 0, stream, scored, lowest, visit);
}

}  // namespace secateur::gpu

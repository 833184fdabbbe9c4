#include "cuda/kernels/row_order.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kWarps = kThreads / kWarpLanes;
constexpr unsigned kDigitBits = 8;
constexpr unsigned kDigits = 1U << kDigitBits;
constexpr unsigned kPasses = 32 / kDigitBits;
static_assert(kThreads == kDigits, "a thread looks after one digit");

struct Counters {
  // Entries of each digit that a warp has; then where its next one of the digit goes.
  unsigned of_warp[kWarps][kDigits];
  unsigned totals_of_warp[kWarps];
};

// Entries of a row that a warp takes: one after the other, so that entries keep their order.
struct Segment {
  std::size_t begin;
  std::size_t end;
};

__device__ inline Segment segment_of(unsigned warp, std::size_t columns) {
  const std::size_t size = (columns + kThreads - 1) / kThreads * kWarpLanes;
  const std::size_t begin = warp * size < columns ? warp * size : columns;
  return {begin, begin + size < columns ? begin + size : columns};
}

// Over all threads: the sum of the values of the threads before this one. All threads of the block take part.
__device__ unsigned sum_before(unsigned value, Counters& counters) {
  const unsigned lane = threadIdx.x % kWarpLanes;
  const unsigned warp = threadIdx.x / kWarpLanes;
  unsigned sum = value;
  for (unsigned distance = 1; distance < kWarpLanes; distance *= 2) {
    const unsigned other = __shfl_up_sync(kAllLanes, sum, distance);
    if (lane >= distance) sum += other;
  }
  if (lane == kWarpLanes - 1) counters.totals_of_warp[warp] = sum;
  __syncthreads();
  for (unsigned other = 0; other < warp; ++other) sum += counters.totals_of_warp[other];
  return sum - value;
}

// One stable pass of a radix sort: entries keep their order within a digit. Others may read the result after a barrier.
__device__ void distribute(const std::uint32_t* keys, const std::uint32_t* orders, std::uint32_t* keys_out, std::uint32_t* orders_out,
                           std::size_t columns, unsigned shift, Counters& counters) {
  const unsigned lane = threadIdx.x % kWarpLanes;
  unsigned* const own = counters.of_warp[threadIdx.x / kWarpLanes];
  const Segment segment = segment_of(threadIdx.x / kWarpLanes, columns);
  for (unsigned digit = lane; digit < kDigits; digit += kWarpLanes) own[digit] = 0;
  __syncwarp();
  for (std::size_t i = segment.begin + lane; i < segment.end; i += kWarpLanes) atomicAdd(&own[(keys[i] >> shift) % kDigits], 1U);
  __syncthreads();
  unsigned total = 0;
  for (unsigned warp = 0; warp < kWarps; ++warp) total += counters.of_warp[warp][threadIdx.x];
  unsigned place = sum_before(total, counters);
  for (unsigned warp = 0; warp < kWarps; ++warp) {
    const unsigned count = counters.of_warp[warp][threadIdx.x];
    counters.of_warp[warp][threadIdx.x] = place;
    place += count;
  }
  __syncthreads();
  for (std::size_t begin = segment.begin; begin < segment.end; begin += kWarpLanes) {
    const std::size_t i = begin + lane;
    const bool inside = i < segment.end;
    const std::uint32_t key = inside ? keys[i] : 0;
    // Lanes behind the end match each other only.
    const unsigned digit = inside ? (key >> shift) % kDigits : kDigits;
    const unsigned same = __match_any_sync(kAllLanes, digit);
    const unsigned rank = static_cast<unsigned>(__popc(same & ((1U << lane) - 1)));
    const unsigned first = inside ? own[digit] : 0;
    __syncwarp();
    if (inside) {
      if (rank == 0) own[digit] = first + static_cast<unsigned>(__popc(same));
      keys_out[first + rank] = key;
      orders_out[first + rank] = orders[i];
    }
    __syncwarp();
  }
}

__global__ void __launch_bounds__(kThreads) order_kernel(RowOrderTask task) {
  SECATEUR_SHARED(Counters, counters);
  const std::size_t offset = std::size_t{blockIdx.x} * task.columns;
  std::uint32_t* keys = task.keys + offset;
  std::uint32_t* orders = task.orders + offset;
  std::uint32_t* other_keys = task.other_keys + offset;
  std::uint32_t* other_orders = task.other_orders + offset;
  for (std::size_t column = threadIdx.x; column < task.columns; column += kThreads) {
    const float magnitude = fabsf(task.weights[offset + column]);
    keys[column] = __float_as_uint(task.scales == nullptr ? magnitude : magnitude * task.scales[column]);
    orders[column] = static_cast<std::uint32_t>(column);
  }
  // An even number of passes: the result is where it began.
  static_assert(kPasses % 2 == 0, "the last pass writes to orders");
  for (unsigned pass = 0; pass < kPasses; pass += 2) {
    __syncthreads();
    distribute(keys, orders, other_keys, other_orders, task.columns, pass * kDigitBits, counters);
    __syncthreads();
    distribute(other_keys, other_orders, keys, orders, task.columns, (pass + 1) * kDigitBits, counters);
  }
}

}  // namespace

cudaError_t order_rows(const RowOrderTask& task, cudaStream_t stream) {
  if (task.rows == 0 || task.columns == 0) return cudaSuccess;
  return launch(order_kernel, dim3(static_cast<unsigned>(task.rows)), dim3(kThreads), 0, stream, task);
}

}  // namespace secateur::gpu

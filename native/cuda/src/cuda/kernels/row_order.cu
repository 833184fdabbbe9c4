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
  // Where the next entry of a digit goes.
  unsigned starts[kDigits];
  // Entries of each digit that a warp has in the chunk at hand.
  unsigned of_warp[kWarps][kDigits];
};

// starts[digit] = number of entries with a smaller digit.
__device__ void count_digits(const std::uint32_t* keys, std::size_t columns, unsigned shift, Counters& counters) {
  counters.starts[threadIdx.x] = 0;
  __syncthreads();
  for (std::size_t i = threadIdx.x; i < columns; i += kThreads) atomicAdd(&counters.starts[(keys[i] >> shift) % kDigits], 1U);
  __syncthreads();
  if (threadIdx.x < kWarpLanes) {
    // A warp scans the counts, eight neighbours in a lane.
    constexpr unsigned kPerLane = kDigits / kWarpLanes;
    unsigned total = 0;
    for (unsigned i = 0; i < kPerLane; ++i) total += counters.starts[threadIdx.x * kPerLane + i];
    unsigned before = total;
    for (unsigned distance = 1; distance < kWarpLanes; distance *= 2) {
      const unsigned other = __shfl_up_sync(kAllLanes, before, distance);
      if (threadIdx.x >= distance) before += other;
    }
    before -= total;
    for (unsigned i = 0; i < kPerLane; ++i) {
      const unsigned count = counters.starts[threadIdx.x * kPerLane + i];
      counters.starts[threadIdx.x * kPerLane + i] = before;
      before += count;
    }
  }
  __syncthreads();
}

// One stable pass of a radix sort: entries keep their order within a digit.
__device__ void distribute(const std::uint32_t* keys, const std::uint32_t* orders, std::uint32_t* keys_out, std::uint32_t* orders_out,
                           std::size_t columns, unsigned shift, Counters& counters) {
  const unsigned lane = threadIdx.x % kWarpLanes;
  const unsigned warp = threadIdx.x / kWarpLanes;
  count_digits(keys, columns, shift, counters);
  for (std::size_t begin = 0; begin < columns; begin += kThreads) {
    for (unsigned w = 0; w < kWarps; ++w) counters.of_warp[w][threadIdx.x] = 0;
    __syncthreads();
    const std::size_t i = begin + threadIdx.x;
    const bool inside = i < columns;
    const std::uint32_t key = inside ? keys[i] : 0;
    // Lanes behind the end match each other only.
    const unsigned digit = inside ? (key >> shift) % kDigits : kDigits;
    const unsigned same = __match_any_sync(kAllLanes, digit);
    const unsigned rank = static_cast<unsigned>(__popc(same & ((1U << lane) - 1)));
    if (inside && rank == 0) counters.of_warp[warp][digit] = static_cast<unsigned>(__popc(same));
    __syncthreads();
    if (inside) {
      unsigned place = counters.starts[digit] + rank;
      for (unsigned w = 0; w < warp; ++w) place += counters.of_warp[w][digit];
      keys_out[place] = key;
      orders_out[place] = orders[i];
    }
    __syncthreads();
    for (unsigned w = 0; w < kWarps; ++w) counters.starts[threadIdx.x] += counters.of_warp[w][threadIdx.x];
    __syncthreads();
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

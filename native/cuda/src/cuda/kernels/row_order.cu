#include "cuda/kernels/row_order.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kDigitBits = 8;
constexpr unsigned kDigits = 1U << kDigitBits;
constexpr unsigned kDigitWarps = kDigits / kWarpLanes;
constexpr unsigned kPasses = 32 / kDigitBits;

// Count: wide enough for the entries of a row.
template <unsigned Threads, class Count>
struct Counters {
  // Entries of each digit that a warp has; then where its next one of the digit goes.
  Count of_warp[Threads / kWarpLanes][kDigits];
  unsigned totals[kDigitWarps];
};

// Turns the counts of all warps into places: of smaller digits before those of larger, within a digit of one warp after the other. All
// threads of the block take part, one for each digit.
template <unsigned Threads, class Count>
__device__ void place_digits(Counters<Threads, Count>& counters) {
  const unsigned lane = threadIdx.x % kWarpLanes;
  unsigned total = 0;
  unsigned before = 0;
  if (threadIdx.x < kDigits) {
    for (unsigned warp = 0; warp < Threads / kWarpLanes; ++warp) total += counters.of_warp[warp][threadIdx.x];
    before = total;
    for (unsigned distance = 1; distance < kWarpLanes; distance *= 2) {
      const unsigned other = __shfl_up_sync(kAllLanes, before, distance);
      if (lane >= distance) before += other;
    }
    if (lane == kWarpLanes - 1) counters.totals[threadIdx.x / kWarpLanes] = before;
  }
  __syncthreads();
  if (threadIdx.x < kDigits) {
    for (unsigned warp = 0; warp < threadIdx.x / kWarpLanes; ++warp) before += counters.totals[warp];
    unsigned place = before - total;
    for (unsigned warp = 0; warp < Threads / kWarpLanes; ++warp) {
      const unsigned count = counters.of_warp[warp][threadIdx.x];
      counters.of_warp[warp][threadIdx.x] = static_cast<Count>(place);
      place += count;
    }
  }
  __syncthreads();
}

// For a full warp: the place of each lane's entry among those of its digit, which the warp counts on from `own`. Entries of lower lanes
// come first.
template <class Count>
__device__ unsigned take_place(unsigned digit, Count* own, unsigned lane) {
  const unsigned same = __match_any_sync(kAllLanes, digit);
  const unsigned rank = static_cast<unsigned>(__popc(same & ((1U << lane) - 1)));
  const unsigned first = digit < kDigits ? own[digit] : 0;
  __syncwarp();
  if (digit < kDigits && rank == 0) own[digit] = static_cast<Count>(first + static_cast<unsigned>(__popc(same)));
  __syncwarp();
  return first + rank;
}

// The bits of a non-negative float32 order like it.
__device__ inline std::uint32_t key_of(const RowOrderTask& task, std::size_t offset, std::size_t column) {
  const float magnitude = fabsf(task.weights[offset + column]);
  return __float_as_uint(task.scales == nullptr ? magnitude : magnitude * task.scales[column]);
}

// The lowest byte is the first.
__device__ inline unsigned byte_of(std::uint32_t key, unsigned index) {
  static_assert(kDigitBits == 8, "a digit is a byte");
  constexpr unsigned kZeroes = 0x4440;
  return __byte_perm(key, 0, kZeroes + index);
}

template <unsigned Threads, unsigned Items>
struct SharedRow {
  static constexpr unsigned kEntries = Threads * Items;
  static_assert(kEntries < 1U << 16, "columns and places have 16 bits");
  Counters<Threads, std::uint16_t> counters;
  std::uint32_t keys[kEntries];
  std::uint16_t orders[kEntries];
};

// A row that fits in shared memory, where it is free to go anywhere. A warp holds the entries of Items · 32 places that follow one another.
template <unsigned Threads, unsigned Items>
__global__ void __launch_bounds__(Threads) order_in_shared(RowOrderTask task) {
  using Row = SharedRow<Threads, Items>;
  SECATEUR_DYNAMIC_SHARED(Row, row);
  const std::size_t offset = std::size_t{blockIdx.x} * task.columns;
  const unsigned lane = threadIdx.x % kWarpLanes;
  const unsigned warp = threadIdx.x / kWarpLanes;
  const unsigned first = warp * Items * kWarpLanes + lane;
  std::uint16_t* const own = row->counters.of_warp[warp];
#pragma unroll 4
  for (unsigned i = 0; i < Items; ++i) {
    const unsigned column = first + i * kWarpLanes;
    // What lies behind the last column comes after every score.
    row->keys[column] = column < task.columns ? key_of(task, offset, column) : 0xffffffffU;
    row->orders[column] = static_cast<std::uint16_t>(column);
  }
#pragma unroll 1
  for (unsigned pass = 0; pass < kPasses; ++pass) {
    const unsigned shift = pass * kDigitBits;
    for (unsigned digit = lane; digit < kDigits; digit += kWarpLanes) own[digit] = 0;
    __syncwarp();
    std::uint32_t keys[Items];
    // A column in the lower half, its place among those of its digit in the upper.
    std::uint32_t entries[Items];
#pragma unroll
    for (unsigned i = 0; i < Items; ++i) {
      keys[i] = row->keys[first + i * kWarpLanes];
      const unsigned rank = take_place(byte_of(keys[i], pass), own, lane);
      entries[i] = row->orders[first + i * kWarpLanes] | rank << 16;
    }
    __syncthreads();
    place_digits(row->counters);
#pragma unroll
    for (unsigned i = 0; i < Items; ++i) {
      // The same digit, asked for in another way: it shall not be kept in a register, of which there are none left.
      const unsigned digit = keys[i] << (32 - kDigitBits - shift) >> (32 - kDigitBits);
      const unsigned place = own[digit] + (entries[i] >> 16);
      row->keys[place] = keys[i];
      row->orders[place] = static_cast<std::uint16_t>(entries[i]);
    }
    __syncthreads();
  }
#pragma unroll 4
  for (unsigned i = 0; i < Items; ++i) {
    const unsigned place = first + i * kWarpLanes;
    if (place < task.columns) task.orders[offset + place] = row->orders[place];
  }
}

constexpr unsigned kThreads = 256;
static_assert(kThreads >= kDigits, "a thread looks after one digit");
using GlobalCounters = Counters<kThreads, unsigned>;

// One stable pass of a radix sort: entries keep their order within a digit. Others may read the result after a barrier.
__device__ void distribute(const std::uint32_t* keys, const std::uint32_t* orders, std::uint32_t* keys_out, std::uint32_t* orders_out,
                           std::size_t columns, unsigned shift, GlobalCounters& counters) {
  const unsigned lane = threadIdx.x % kWarpLanes;
  const unsigned warp = threadIdx.x / kWarpLanes;
  unsigned* const own = counters.of_warp[warp];
  // A warp takes entries that follow one another.
  const std::size_t size = (columns + kThreads - 1) / kThreads * kWarpLanes;
  const std::size_t begin = warp * size < columns ? warp * size : columns;
  const std::size_t end = begin + size < columns ? begin + size : columns;
  for (unsigned digit = lane; digit < kDigits; digit += kWarpLanes) own[digit] = 0;
  __syncwarp();
  for (std::size_t i = begin + lane; i < end; i += kWarpLanes) atomicAdd(&own[(keys[i] >> shift) % kDigits], 1U);
  __syncthreads();
  place_digits(counters);
  for (std::size_t first = begin; first < end; first += kWarpLanes) {
    const std::size_t i = first + lane;
    const bool inside = i < end;
    const std::uint32_t key = inside ? keys[i] : 0;
    // Lanes behind the end match each other only.
    const unsigned place = take_place(inside ? (key >> shift) % kDigits : kDigits, own, lane);
    if (inside) {
      keys_out[place] = key;
      orders_out[place] = orders[i];
    }
  }
}

// A row of any length.
__global__ void __launch_bounds__(kThreads) order_in_global(RowOrderTask task) {
  SECATEUR_SHARED(GlobalCounters, counters);
  const std::size_t offset = std::size_t{blockIdx.x} * task.columns;
  std::uint32_t* keys = task.keys + offset;
  std::uint32_t* orders = task.orders + offset;
  std::uint32_t* other_keys = task.other_keys + offset;
  std::uint32_t* other_orders = task.other_orders + offset;
  for (std::size_t column = threadIdx.x; column < task.columns; column += kThreads) {
    keys[column] = key_of(task, offset, column);
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

template <unsigned Threads, unsigned Items>
bool fits(std::size_t columns) {
  return columns <= SharedRow<Threads, Items>::kEntries;
}

template <unsigned Threads, unsigned Items>
cudaError_t launch_in_shared(const RowOrderTask& task, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(task.rows));
  return launch(order_in_shared<Threads, Items>, grid, dim3(Threads), sizeof(SharedRow<Threads, Items>), stream, task);
}

}  // namespace

cudaError_t order_rows(const RowOrderTask& task, cudaStream_t stream) {
  if (task.rows == 0 || task.columns == 0) return cudaSuccess;
  if (fits<256, 4>(task.columns)) return launch_in_shared<256, 4>(task, stream);
  if (fits<256, 8>(task.columns)) return launch_in_shared<256, 8>(task, stream);
  if (fits<256, 16>(task.columns)) return launch_in_shared<256, 16>(task, stream);
  if (fits<512, 16>(task.columns)) return launch_in_shared<512, 16>(task, stream);
  if (fits<512, 37>(task.columns)) {
    const cudaError_t error = launch_in_shared<512, 37>(task, stream);
    // As wide as Qwen2.5-7B is. So much shared memory a block has not on every device.
    if (error != cudaErrorInvalidValue) return error;
    static_cast<void>(cudaGetLastError());
  }
  return launch(order_in_global, dim3(static_cast<unsigned>(task.rows)), dim3(kThreads), 0, stream, task);
}

}  // namespace secateur::gpu

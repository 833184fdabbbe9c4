// Races planted in kernels: the race check (SECATEUR_CUDA_RACE_CHECK) must find each of them, and nothing where the order is right.
#include <doctest/doctest.h>

#include "cuda/gpu.h"
#include "cuda/tensor_core.h"
#include "device_array.h"

namespace secateur::test {
namespace {

constexpr unsigned kThreads = 64;
constexpr unsigned kBlocks = 3;

struct Values {
  float items[4 * kThreads];
};

// How threads wait before they read what their neighbour wrote.
enum class Wait { kNot, kShuffle, kWarp, kBlock };

template <Wait kWait>
__device__ void wait_for_neighbours() {
  if (kWait == Wait::kShuffle) static_cast<void>(__shfl_sync(gpu::kAllLanes, 1, 0));
  if (kWait == Wait::kWarp) __syncwarp();
  if (kWait == Wait::kBlock) __syncthreads();
}

template <Wait kWait>
__global__ void pass_on_in_warp(float* result) {
  SECATEUR_SHARED(Values, values);
  const unsigned i = threadIdx.x;
  values.items[i] = static_cast<float>(i);
  wait_for_neighbours<kWait>();
  result[blockIdx.x * blockDim.x + i] = values.items[i / 32 * 32 + (i + 1) % 32];
}

template <Wait kWait>
__global__ void pass_on_in_block(float* result) {
  SECATEUR_SHARED(Values, values);
  values.items[threadIdx.x] = static_cast<float>(threadIdx.x);
  wait_for_neighbours<kWait>();
  result[blockIdx.x * blockDim.x + threadIdx.x] = values.items[(threadIdx.x + 32) % blockDim.x];
}

// Reads tiles that other threads have copied. The second tile takes the place of the first, which has to have been read by then.
template <bool WaitForOthers, bool WaitBeforeNext>
__global__ void read_tiles(const float* source, float* result) {
  SECATEUR_SHARED(Values, tile);
  float sum = 0;
  for (unsigned round = 0; round < 2; ++round) {
    gpu::copy_async_16(tile.items + 4 * threadIdx.x, source + 4 * threadIdx.x, 16);
    gpu::copy_async_commit();
    gpu::copy_async_wait<0>();
    if (WaitForOthers) __syncthreads();
    sum += tile.items[4 * ((threadIdx.x + 1) % blockDim.x)];
    if (WaitBeforeNext) __syncthreads();
  }
  result[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

__global__ void count_without_atomics(unsigned* count) {
  if (threadIdx.x == 0) *count += 1;
}

__global__ void count_with_atomics(unsigned* count) { atomicAdd(count, 1U); }

// The block that comes last adds up what all blocks have left.
__global__ void add_in_last_block(float* sums, unsigned* arrived, float* result) {
  SECATEUR_SHARED(unsigned, position);
  if (threadIdx.x == 0) {
    sums[blockIdx.x] = static_cast<float>(blockIdx.x + 1);
    __threadfence();
    position = atomicInc(arrived, gridDim.x - 1);
  }
  __syncthreads();
  if (position != gridDim.x - 1 || threadIdx.x != 0) return;
  float sum = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += sums[i];
  *result = sum;
}

template <class... Parameters, class... Arguments>
bool is_race(void (*kernel)(Parameters...), Arguments... arguments) {
  require_success(gpu::launch(kernel, dim3(kBlocks), dim3(kThreads), 0, nullptr, arguments...));
  if (cudaDeviceSynchronize() == cudaSuccess) return false;
  return cuda_on_host::last_failure().find("a race") != std::string::npos;
}

}  // namespace

TEST_SUITE("race check" * doctest::skip(!cuda_on_host::kRaceCheck)) {
  TEST_CASE("threads of a warp, of a block") {
    DeviceArray<float> result(kBlocks * kThreads);
    CHECK(is_race(pass_on_in_warp<Wait::kNot>, result.data()));
    CHECK(is_race(pass_on_in_warp<Wait::kShuffle>, result.data()));
    CHECK_FALSE(is_race(pass_on_in_warp<Wait::kWarp>, result.data()));
    CHECK_FALSE(is_race(pass_on_in_warp<Wait::kBlock>, result.data()));
    CHECK(is_race(pass_on_in_block<Wait::kNot>, result.data()));
    CHECK(is_race(pass_on_in_block<Wait::kWarp>, result.data()));
    CHECK_FALSE(is_race(pass_on_in_block<Wait::kBlock>, result.data()));
  }

  TEST_CASE("asynchronous copies") {
    DeviceArray<float> source(std::vector<float>(4 * kThreads, 1.0F));
    DeviceArray<float> result(kBlocks * kThreads);
    CHECK(is_race(read_tiles<false, true>, source.data(), result.data()));
    CHECK(is_race(read_tiles<true, false>, source.data(), result.data()));
    CHECK_FALSE(is_race(read_tiles<true, true>, source.data(), result.data()));
  }

  TEST_CASE("blocks") {
    DeviceArray<unsigned> count(std::vector<unsigned>{0});
    CHECK(is_race(count_without_atomics, count.data()));
    CHECK_FALSE(is_race(count_with_atomics, count.data()));
    DeviceArray<unsigned> arrived(std::vector<unsigned>{0});
    DeviceArray<float> sums(kBlocks);
    DeviceArray<float> result(1);
    CHECK_FALSE(is_race(add_in_last_block, sums.data(), arrived.data(), result.data()));
    CHECK(result.read()[0] == 6.0F);
  }
}

}  // namespace secateur::test

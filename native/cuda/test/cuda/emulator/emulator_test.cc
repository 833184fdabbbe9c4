// The emulation itself: what it must notice, it is shown here.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "cuda/gpu.h"
#include "cuda/tensor_core.h"
#include "device_array.h"
#include "schedules.h"

namespace secateur::test {
namespace {

using cuda_on_host::Schedule;
using cuda_on_host::ThreadOrder;

struct Values {
  float items[64];
};

// Every thread gives its number to the next one by way of shared memory.
template <bool Barrier>
__global__ void pass_on(float* result) {
  SECATEUR_SHARED(Values, values);
  values.items[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (Barrier) __syncthreads();
  result[threadIdx.x] = values.items[(threadIdx.x + 1) % blockDim.x];
}

__global__ void diverge_at_barrier() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void leave_out_oneself() { __syncwarp(threadIdx.x == 3 ? 0x1U : 0xffffffffU); }

__global__ void wait_for_the_gone() {
  if (threadIdx.x == 5) return;
  static_cast<void>(__shfl_sync(gpu::kAllLanes, 1, 0));
}

__global__ void ask_a_stranger() {
  if (threadIdx.x < 16) static_cast<void>(__shfl_sync(0xffffU, 1, 20));
}

template <bool Wait>
__global__ void copy_to_shared(const float* source, float* result) {
  SECATEUR_DYNAMIC_SHARED(float, values);
  gpu::copy_async_16(values + 4 * threadIdx.x, source + 4 * threadIdx.x, threadIdx.x == 1 ? 8 : 16);
  gpu::copy_async_commit();
  if (Wait) gpu::copy_async_wait<0>();
  __syncthreads();
  for (unsigned i = 0; i < 4; ++i) result[4 * threadIdx.x + i] = values[4 * threadIdx.x + i];
}

__global__ void read_unwritten(float* result) {
  SECATEUR_SHARED(Values, values);
  result[threadIdx.x] = values.items[threadIdx.x];
}

__global__ void fill(float* target, float value) { target[threadIdx.x] = value; }

cudaError_t run(cudaError_t launched) { return launched == cudaSuccess ? cudaDeviceSynchronize() : launched; }

}  // namespace

TEST_CASE("a barrier that is missing shows in one of the orders") {
  for (const bool barrier : {true, false}) {
    bool right = true;
    in_all_schedules([&] {
      DeviceArray<float> result(64);
      const cudaError_t error = run(gpu::launch(barrier ? pass_on<true> : pass_on<false>, dim3(1), dim3(64), 0, nullptr, result.data()));
      CHECK((error == cudaSuccess || cuda_on_host::kRaceCheck));
      right = right && error == cudaSuccess;
      const std::vector<float> actual = result.read();
      for (std::size_t i = 0; i < 64; ++i) right = right && actual[i] == static_cast<float>((i + 1) % 64);
    });
    CHECK(right == barrier);
  }
}

TEST_CASE("threads that cannot meet are named with their places") {
  CHECK(run(gpu::launch(diverge_at_barrier, dim3(1), dim3(64), 0, nullptr)) == cudaErrorLaunchFailure);
  CHECK(cuda_on_host::last_failure().find("divergent barrier: thread (32, 0, 0)") != std::string::npos);
  CHECK(run(gpu::launch(leave_out_oneself, dim3(1), dim3(32), 0, nullptr)) == cudaErrorLaunchFailure);
  CHECK(cuda_on_host::last_failure().find("is not in its own mask at emulator_test.cc:") != std::string::npos);
  CHECK(run(gpu::launch(wait_for_the_gone, dim3(1), dim3(32), 0, nullptr)) == cudaErrorLaunchFailure);
  const std::string deadlock = cuda_on_host::last_failure();
  CHECK(deadlock.find("wait for each other for ever") != std::string::npos);
  CHECK(deadlock.find("1 have ended") != std::string::npos);
  CHECK(run(gpu::launch(ask_a_stranger, dim3(1), dim3(32), 0, nullptr)) == cudaErrorLaunchFailure);
  CHECK(cuda_on_host::last_failure().find("reads from lane 20, which takes no part") != std::string::npos);
}

TEST_CASE("an asynchronous copy is there after the wait and not before") {
  std::vector<float> source(8);
  for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<float>(i) + 1;
  DeviceArray<float> device_source(source);
  for (const bool wait : {true, false}) {
    DeviceArray<float> result(8);
    REQUIRE(run(gpu::launch(wait ? copy_to_shared<true> : copy_to_shared<false>, dim3(1), dim3(2), 8 * sizeof(float), nullptr,
                            device_source.data(), result.data())) == cudaSuccess);
    const std::vector<float> actual = result.read();
    for (std::size_t i = 0; i < 8; ++i) {
      if (wait) {
        // Of the second thread's 16 bytes only 8 were asked for.
        CHECK(actual[i] == (i < 6 ? source[i] : 0.0F));
      } else {
        CHECK(std::isnan(actual[i]));
      }
    }
  }
}

TEST_CASE("shared memory holds nothing at first") {
  DeviceArray<float> result(64);
  REQUIRE(run(gpu::launch(read_unwritten, dim3(1), dim3(64), 0, nullptr, result.data())) == cudaSuccess);
  for (const float value : result.read()) CHECK(std::isnan(value));
}

TEST_CASE("work is done when it is waited for, in the order of the stream and of events") {
  cudaStream_t first = nullptr;
  cudaStream_t second = nullptr;
  cudaEvent_t event = nullptr;
  require_success(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
  require_success(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
  require_success(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  void* pinned = nullptr;
  require_success(cudaMallocHost(&pinned, sizeof(float)));
  auto* const target = static_cast<float*>(pinned);
  DeviceArray<float> value(1);
  require_success(gpu::launch(fill, dim3(1), dim3(1), 0, first, value.data(), 7.0F));
  require_success(cudaEventRecord(event, first));
  require_success(cudaStreamWaitEvent(second, event));
  *target = 3.0F;
  require_success(cudaMemcpyAsync(target, value.data(), sizeof(float), cudaMemcpyDeviceToHost, second));
  // Whoever reads before waiting gets neither the old nor the new value.
  CHECK(std::isnan(*target));
  require_success(cudaStreamSynchronize(second));
  CHECK(*target == 7.0F);
  require_success(cudaFreeHost(pinned));
  require_success(cudaEventDestroy(event));
  require_success(cudaStreamDestroy(first));
  require_success(cudaStreamDestroy(second));
}

TEST_CASE("what the device cannot reach or hold is refused") {
  float on_host = 0;
  CHECK(gpu::launch(fill, dim3(1), dim3(1), 0, nullptr, &on_host, 1.0F) == cudaErrorIllegalAddress);
  CHECK(cuda_on_host::last_failure().find("argument 0") != std::string::npos);
  DeviceArray<float> value(1);
  CHECK(gpu::launch(fill, dim3(1), dim3(2048), 0, nullptr, value.data(), 1.0F) == cudaErrorInvalidConfiguration);
  CHECK(gpu::launch(fill, dim3(1, 70000), dim3(1), 0, nullptr, value.data(), 1.0F) == cudaErrorInvalidConfiguration);
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  require_success(cudaMemGetInfo(&free_bytes, &total_bytes));
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, free_bytes + 1) == cudaErrorMemoryAllocation);
  CHECK(cudaMemcpy(&on_host, value.data(), 4096, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
}

}  // namespace secateur::test

// Accesses that end the process, each made in a child of this one. Those of kernels outside of their arrays need AddressSanitizer.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>

#include "cuda/gpu.h"
#include "cuda/tensor_core.h"
#include "device_array.h"

namespace secateur::test {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kAddressesAreChecked = true;
#else
constexpr bool kAddressesAreChecked = false;
#endif

constexpr unsigned kThreads = 64;

struct Values {
  float items[kThreads];
};

// The size of the array is kThreads.
__global__ void write_global(float* values, std::size_t distance) { values[threadIdx.x + distance] = 1.0F; }

__global__ void read_global(const float* values, std::size_t distance, float* result) {
  result[threadIdx.x] = values[threadIdx.x + distance];
}

__global__ void write_shared(float* result, std::size_t distance) {
  SECATEUR_SHARED(Values, values);
  float* const items = values.items;
  items[threadIdx.x + distance] = 1.0F;
  result[threadIdx.x] = items[threadIdx.x];
}

__global__ void read_dynamic_shared(float* result, std::size_t distance) {
  SECATEUR_DYNAMIC_SHARED(float, values);
  result[threadIdx.x] = values[threadIdx.x + distance];
}

// To the last 16 bytes of shared memory, or as many floats further.
__global__ void copy_to_shared(const float* source, std::size_t distance) {
  SECATEUR_SHARED(Values, values);
  gpu::copy_async_16(values.items + kThreads - 4 + distance, source, 16);
}

// Whether a process of its own comes to the end of it.
bool survives(const std::function<void()>& work) {
  std::fflush(nullptr);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    // What sanitizers say of a death that is wanted would only confuse.
    const int nowhere = open("/dev/null", O_WRONLY);
    dup2(nowhere, STDOUT_FILENO);
    dup2(nowhere, STDERR_FILENO);
    work();
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

template <class... Parameters, class... Arguments>
bool kernel_survives(void (*kernel)(Parameters...), std::size_t shared_bytes, Arguments... arguments) {
  return survives([&] {
    require_success(gpu::launch(kernel, dim3(1), dim3(kThreads), shared_bytes, nullptr, arguments...));
    require_success(cudaDeviceSynchronize());
  });
}

}  // namespace

TEST_CASE("the host cannot touch device memory") {
  float* memory = nullptr;
  require_success(cudaMalloc(reinterpret_cast<void**>(&memory), kThreads * sizeof(float)));
  CHECK(survives([] {}));
  CHECK_FALSE(survives([&] { *static_cast<volatile float*>(memory) = 1.0F; }));
  CHECK_FALSE(survives([&] { static_cast<void>(*static_cast<volatile float*>(memory)); }));
  require_success(cudaFree(memory));
}

TEST_CASE("kernels cannot leave their arrays" * doctest::skip(!kAddressesAreChecked)) {
  float* memory = nullptr;
  require_success(cudaMalloc(reinterpret_cast<void**>(&memory), kThreads * sizeof(float)));
  DeviceArray<float> array(kThreads);
  DeviceArray<float> result(kThreads);
  const std::size_t shared_bytes = kThreads * sizeof(float);
  for (const std::size_t distance : {std::size_t{0}, std::size_t{1}}) {
    CHECK(kernel_survives(write_global, 0, memory, distance) == (distance == 0));
    CHECK(kernel_survives(read_global, 0, array.data(), distance, result.data()) == (distance == 0));
    CHECK(kernel_survives(write_shared, 0, memory, distance) == (distance == 0));
    CHECK(kernel_survives(read_dynamic_shared, shared_bytes, memory, distance) == (distance == 0));
  }
  CHECK(kernel_survives(copy_to_shared, 0, array.data(), std::size_t{0}));
  CHECK_FALSE(kernel_survives(copy_to_shared, 0, array.data(), std::size_t{4}));
  const auto before = ~std::size_t{0};
  CHECK_FALSE(kernel_survives(read_global, 0, array.data(), before, result.data()));
  CHECK_FALSE(kernel_survives(write_shared, 0, memory, before));
  CHECK_FALSE(kernel_survives(read_dynamic_shared, shared_bytes, memory, before));
  require_success(cudaFree(memory));
}

}  // namespace secateur::test

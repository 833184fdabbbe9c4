// Emulates the part of CUDA that the kernels use, so that their very source runs, and is tested, without a GPU. Every CUDA thread is a
// fiber; it runs until it meets a barrier or a shuffle, which waits for all threads of the block or lanes of the warp. Lanes are not in
// lockstep, so a missing barrier shows. Memory is the host's. Speed, weak memory order and what the compiler makes of a kernel are not
// modelled.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#define __global__
#define __device__
#define __launch_bounds__(...)

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_value = 1, unsigned y_value = 1, unsigned z_value = 1) : x(x_value), y(y_value), z(z_value) {}
};

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
using cudaStream_t = void*;

namespace secateur::gpu_on_host {

// The order in which runnable threads take their turn.
enum class ThreadOrder { kUp, kDown };

struct Thread {
  uint3 thread_index;
  uint3 block_index;
  dim3 block_size;
  dim3 grid_size;
};

const Thread& current();
void wait_for_block();
// Gives `bits` to the other lanes; returns those of lane ^ distance. All 32 lanes must take part.
std::uint64_t exchange(std::uint64_t bits, unsigned distance);
// The block's variable with this key: zero for none, bytes of 0xff at first.
void* shared_variable(const void* key, std::size_t bytes);

void set_thread_order(ThreadOrder order);
// Throws when threads wait for each other for ever.
cudaError_t run(dim3 grid, dim3 block, const std::function<void()>& kernel);

}  // namespace secateur::gpu_on_host

#define threadIdx (secateur::gpu_on_host::current().thread_index)
#define blockIdx (secateur::gpu_on_host::current().block_index)
#define blockDim (secateur::gpu_on_host::current().block_size)
#define gridDim (secateur::gpu_on_host::current().grid_size)

#define SECATEUR_SHARED(Type, name) \
  static const char name##_key = 0; \
  Type& name = *static_cast<Type*>(secateur::gpu_on_host::shared_variable(&name##_key, sizeof(Type)))

inline void __syncthreads() { secateur::gpu_on_host::wait_for_block(); }

template <class Value>
Value __shfl_xor_sync(unsigned, Value value, int distance) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  bits = secateur::gpu_on_host::exchange(bits, static_cast<unsigned>(distance));
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

namespace secateur::gpu {

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t, cudaStream_t, Arguments... arguments) {
  return gpu_on_host::run(grid, block, [=] { kernel(static_cast<Parameters>(arguments)...); });
}

}  // namespace secateur::gpu

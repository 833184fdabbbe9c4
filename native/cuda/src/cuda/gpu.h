// The one include of kernel files: CUDA under nvcc, the host emulation (emulator/) under a C++ compiler. Kernels use only what both have.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)

#include <cuda_runtime.h>

namespace secateur::gpu {

// Launch syntax is all of CUDA that a C++ compiler cannot parse. More than 48 KiB of dynamic shared memory has to be allowed for the
// kernel first (cudaFuncSetAttribute), which this does.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream,
                   Arguments... arguments) {
  constexpr std::size_t kAlwaysAllowedBytes = 48 * 1024;
  if (shared_bytes > kAlwaysAllowedBytes) {
    const cudaError_t allowed = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (allowed != cudaSuccess) return allowed;
  }
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
  return cudaGetLastError();
}

}  // namespace secateur::gpu

// Declares a variable of the block's shared memory. One struct per kernel, so that the emulation can bound and poison it.
#define SECATEUR_SHARED(Type, name) __shared__ Type name
// Names the block's dynamic shared memory, whose size the launch gives: Type* name.
#define SECATEUR_DYNAMIC_SHARED(Type, name)                                \
  extern __shared__ __align__(16) unsigned char secateur_dynamic_shared[]; \
  Type* const name = reinterpret_cast<Type*>(secateur_dynamic_shared)

#elif __has_include("cuda_on_host.h")

#include "cuda_on_host.h"

#else

// The backend's host code: it calls the entries of kernels, whose code is compiled elsewhere.
#include <cuda_runtime.h>

#endif

#if defined(__CUDACC__) || __has_include("cuda_on_host.h")
#define SECATEUR_KERNEL_CODE
#endif

namespace secateur::gpu {

inline constexpr unsigned kWarpLanes = 32;
inline constexpr unsigned kAllLanes = 0xffffffffU;

#if defined(SECATEUR_KERNEL_CODE)

// Sum over the lanes of a full warp, in every lane, always in the same order.
template <class Value>
__device__ inline Value warp_sum(Value value) {
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

// Maximum over the lanes of a full warp, in every lane.
__device__ inline float warp_maximum(float value) {
  for (int distance = 16; distance > 0; distance /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

#endif

}  // namespace secateur::gpu

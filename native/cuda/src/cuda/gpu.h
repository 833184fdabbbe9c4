// The one include of kernel files: CUDA under nvcc, the tests' emulation under a C++ compiler. Kernels use only what both have.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)

#include <cuda_runtime.h>

namespace secateur::gpu {

// Launch syntax is all of CUDA that a C++ compiler cannot parse.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, cudaStream_t stream, Arguments... arguments) {
  kernel<<<grid, block, 0, stream>>>(static_cast<Parameters>(arguments)...);
  return cudaGetLastError();
}

}  // namespace secateur::gpu

// Declares a variable of the block's shared memory.
#define SECATEUR_SHARED(Type, name) __shared__ Type name

#else

#include "gpu_on_host.h"

#endif

namespace secateur::gpu {

inline constexpr unsigned kWarpLanes = 32;
inline constexpr unsigned kAllLanes = 0xffffffffU;

// Sum over the lanes of a full warp, in every lane, always in the same order.
__device__ inline double warp_sum(double value) {
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

}  // namespace secateur::gpu

// Sums over all threads of a block, always in the same order.
#pragma once

#include "cuda/gpu.h"

namespace secateur::gpu {

#if defined(SECATEUR_KERNEL_CODE)

template <unsigned Threads, class Value = double>
struct BlockSums {
  Value values[Threads / kWarpLanes];
};

// In every thread. All threads of the block call it; the memory may be used again at once.
template <unsigned Threads, class Value>
__device__ inline Value block_sum(Value value, BlockSums<Threads, Value>& sums) {
  value = warp_sum(value);
  if (threadIdx.x % kWarpLanes == 0) sums.values[threadIdx.x / kWarpLanes] = value;
  __syncthreads();
  Value total = 0;
  for (unsigned warp = 0; warp < Threads / kWarpLanes; ++warp) total += sums.values[warp];
  __syncthreads();
  return total;
}

#endif

}  // namespace secateur::gpu

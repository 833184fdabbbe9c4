#include "cuda/kernels/block_sum.h"
#include "cuda/kernels/squared_distance.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 256;

// A block per part.
__global__ void __launch_bounds__(kThreads) squared_distance_kernel(const float* x, const float* y, std::size_t size, double* sums) {
  SECATEUR_SHARED(BlockSums<kThreads>, of_warps);
  const std::size_t begin = std::size_t{blockIdx.x} * kDistancePart;
  const std::size_t end = size < begin + kDistancePart ? size : begin + kDistancePart;
  double sum = 0;
  for (std::size_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const double difference = static_cast<double>(x[i]) - (y == nullptr ? 0.0 : static_cast<double>(y[i]));
    sum += difference * difference;
  }
  sum = block_sum(sum, of_warps);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

}  // namespace

cudaError_t squared_distance(const float* x, const float* y, std::size_t size, double* sums, cudaStream_t stream) {
  if (size == 0) return cudaSuccess;
  return launch(squared_distance_kernel, dim3(static_cast<unsigned>(distance_parts(size))), dim3(kThreads), 0, stream, x, y, size, sums);
}

}  // namespace secateur::gpu

#include "cuda/kernels/damp_gram_matrix.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 1024;
constexpr unsigned kWarps = kThreads / kWarpLanes;

struct WarpSums {
  double values[kWarps];
};

// One block.
__global__ void __launch_bounds__(kThreads)
    damp_kernel(double* gram, std::size_t columns, double of_dead, double share, std::uint8_t* dead) {
  SECATEUR_SHARED(WarpSums, warp_sums);
  double sum = 0;
  for (std::size_t column = threadIdx.x; column < columns; column += kThreads) {
    double& diagonal = gram[column * columns + column];
    const double value = diagonal;
    const bool is_dead = value == 0;
    dead[column] = is_dead ? 1 : 0;
    if (is_dead) diagonal = of_dead;
    sum += is_dead ? of_dead : value;
  }
  sum = warp_sum(sum);
  if (threadIdx.x % kWarpLanes == 0) warp_sums.values[threadIdx.x / kWarpLanes] = sum;
  __syncthreads();
  static_assert(kWarps == kWarpLanes, "every warp adds up the sums of all");
  const double damping = share * warp_sum(warp_sums.values[threadIdx.x % kWarpLanes]) / static_cast<double>(columns);
  for (std::size_t column = threadIdx.x; column < columns; column += kThreads) gram[column * columns + column] += damping;
}

}  // namespace

cudaError_t damp_gram_matrix(double* gram, std::size_t columns, float of_dead, double share, std::uint8_t* dead, cudaStream_t stream) {
  if (columns == 0) return cudaSuccess;
  return launch(damp_kernel, dim3(1), dim3(kThreads), 0, stream, gram, columns, static_cast<double>(of_dead), share, dead);
}

}  // namespace secateur::gpu

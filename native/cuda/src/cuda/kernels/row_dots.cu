#include "cuda/kernels/block_sum.h"
#include "cuda/kernels/row_dots.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 256;

// A block per row.
__global__ void __launch_bounds__(kThreads) dot_kernel(const float* left, const float* right, std::size_t columns, double* dots) {
  SECATEUR_SHARED(BlockSums<kThreads>, sums);
  const std::size_t begin = std::size_t{blockIdx.x} * columns;
  double sum = 0;
  for (std::size_t column = threadIdx.x; column < columns; column += kThreads) {
    sum = fma(static_cast<double>(left[begin + column]), static_cast<double>(right[begin + column]), sum);
  }
  sum = block_sum(sum, sums);
  if (threadIdx.x == 0) dots[blockIdx.x] = sum;
}

}  // namespace

cudaError_t row_dots(const float* left, const float* right, std::size_t rows, std::size_t columns, double* dots, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return launch(dot_kernel, dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, stream, left, right, columns, dots);
}

}  // namespace secateur::gpu

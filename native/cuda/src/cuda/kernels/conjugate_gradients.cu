#include "cuda/kernels/block_sum.h"
#include "cuda/kernels/conjugate_gradients.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 256;

// A block per row; each thread has every 256th column.
struct Row {
  __device__ explicit Row(const ConjugateGradientsTask& task)
      : columns(task.columns),
        damping(task.damping),
        mask(task.mask + blockIdx.x * ((task.columns + 7) / 8)),
        inverse_diagonal(task.inverse_diagonal),
        product(task.product + blockIdx.x * task.columns),
        direction(task.direction + blockIdx.x * task.columns),
        residual(task.residual + blockIdx.x * task.columns),
        fitted(task.fitted + blockIdx.x * task.columns) {}

  __device__ bool keeps(std::size_t column) const { return ((mask[column / 8] >> (column % 8)) & 1U) == 0; }
  __device__ float damped_product(std::size_t column) const { return fmaf(damping, direction[column], product[column]); }
  __device__ double own_progress() const {
    double sum = 0;
    for (std::size_t column = threadIdx.x; column < columns; column += kThreads) {
      sum = fma(static_cast<double>(residual[column]), static_cast<double>(residual[column] * inverse_diagonal[column]), sum);
    }
    return sum;
  }

  std::size_t columns;
  float damping;
  const std::uint8_t* mask;
  const float* inverse_diagonal;
  const float* product;
  float* direction;
  float* residual;
  float* fitted;
};

__global__ void __launch_bounds__(kThreads) begin_kernel(ConjugateGradientsTask task) {
  SECATEUR_SHARED(BlockSums<kThreads>, sums);
  const Row row(task);
  for (std::size_t column = threadIdx.x; column < row.columns; column += kThreads) {
    const float residual = row.keeps(column) ? row.damped_product(column) : 0.0F;
    row.residual[column] = residual;
    row.direction[column] = residual * row.inverse_diagonal[column];
  }
  const double progress = block_sum(row.own_progress(), sums);
  if (threadIdx.x == 0) task.progress[blockIdx.x] = progress;
}

__global__ void __launch_bounds__(kThreads) step_kernel(ConjugateGradientsTask task) {
  SECATEUR_SHARED(BlockSums<kThreads>, sums);
  const Row row(task);
  const double before = task.progress[blockIdx.x];
  double curvature = 0;
  for (std::size_t column = threadIdx.x; column < row.columns; column += kThreads) {
    curvature = fma(static_cast<double>(row.direction[column]), static_cast<double>(row.damped_product(column)), curvature);
  }
  curvature = block_sum(curvature, sums);
  // The same in all threads.
  if (!(curvature > 0 && before > 0)) return;
  const auto length = static_cast<float>(before / curvature);
  for (std::size_t column = threadIdx.x; column < row.columns; column += kThreads) {
    if (row.keeps(column)) row.residual[column] = fmaf(-length, row.damped_product(column), row.residual[column]);
    row.fitted[column] = fmaf(length, row.direction[column], row.fitted[column]);
  }
  const double progress = block_sum(row.own_progress(), sums);
  const auto kept_share = static_cast<float>(progress / before);
  for (std::size_t column = threadIdx.x; column < row.columns; column += kThreads) {
    row.direction[column] = fmaf(kept_share, row.direction[column], row.residual[column] * row.inverse_diagonal[column]);
  }
  if (threadIdx.x == 0) task.progress[blockIdx.x] = progress;
}

}  // namespace

cudaError_t begin_conjugate_gradients(const ConjugateGradientsTask& task, cudaStream_t stream) {
  if (task.rows == 0) return cudaSuccess;
  return launch(begin_kernel, dim3(static_cast<unsigned>(task.rows)), dim3(kThreads), 0, stream, task);
}

cudaError_t step_conjugate_gradients(const ConjugateGradientsTask& task, cudaStream_t stream) {
  if (task.rows == 0) return cudaSuccess;
  return launch(step_kernel, dim3(static_cast<unsigned>(task.rows)), dim3(kThreads), 0, stream, task);
}

}  // namespace secateur::gpu

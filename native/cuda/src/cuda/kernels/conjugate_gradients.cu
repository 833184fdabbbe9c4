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
  __device__ float damped_product(std::size_t column, float towards) const { return fmaf(damping, towards, product[column]); }

  std::size_t columns;
  float damping;
  const std::uint8_t* mask;
  const float* inverse_diagonal;
  const float* product;
  float* direction;
  float* residual;
  float* fitted;
};

__device__ inline double add_progress(float residual, float preconditioned, double sum) {
  return fma(static_cast<double>(residual), static_cast<double>(preconditioned), sum);
}

__global__ void __launch_bounds__(kThreads) begin_kernel(ConjugateGradientsTask task) {
  SECATEUR_SHARED(BlockSums<kThreads>, sums);
  const Row row(task);
  double progress = 0;
  for (std::size_t column = threadIdx.x; column < row.columns; column += kThreads) {
    const float residual = row.keeps(column) ? row.damped_product(column, row.direction[column]) : 0.0F;
    const float preconditioned = residual * row.inverse_diagonal[column];
    row.residual[column] = residual;
    row.direction[column] = preconditioned;
    progress = add_progress(residual, preconditioned, progress);
  }
  progress = block_sum(progress, sums);
  if (threadIdx.x == 0) task.progress[blockIdx.x] = progress;
}

__global__ void __launch_bounds__(kThreads) step_kernel(ConjugateGradientsTask task) {
  SECATEUR_SHARED(BlockSums<kThreads>, sums);
  const Row row(task);
  const double before = task.progress[blockIdx.x];
  double curvature = 0;
  for (std::size_t column = threadIdx.x; column < row.columns; column += kThreads) {
    const float towards = row.direction[column];
    curvature = fma(static_cast<double>(towards), static_cast<double>(row.damped_product(column, towards)), curvature);
  }
  curvature = block_sum(curvature, sums);
  // The same in all threads.
  if (!(curvature > 0 && before > 0)) return;
  const auto length = static_cast<float>(before / curvature);
  double progress = 0;
  // Nothing is asked for again that has been here: what is written may be anywhere, for all that the compiler knows.
  for (std::size_t column = threadIdx.x; column < row.columns; column += kThreads) {
    const float towards = row.direction[column];
    float residual = row.residual[column];
    if (row.keeps(column)) {
      residual = fmaf(-length, row.damped_product(column, towards), residual);
      row.residual[column] = residual;
    }
    row.fitted[column] = fmaf(length, towards, row.fitted[column]);
    progress = add_progress(residual, residual * row.inverse_diagonal[column], progress);
  }
  progress = block_sum(progress, sums);
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

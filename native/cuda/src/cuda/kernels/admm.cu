#include "cuda/kernels/admm.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 256;

__device__ inline bool is_dropped(const AdmmSums& task, std::size_t row, std::size_t column) {
  return ((task.mask[row * ((task.columns + 7) / 8) + column / 8] >> (column % 8)) & 1U) != 0;
}

// A block per row, here and below.
__global__ void __launch_bounds__(kThreads) start_kernel(AdmmStart task) {
  for (std::size_t column = threadIdx.x; column < task.columns; column += kThreads) {
    const std::size_t place = blockIdx.x * task.columns + column;
    const float norm = task.norms[column];
    const float weight = task.weights[place] * norm;
    const float target = fmaf(task.damping, weight, task.products[place] / norm);
    task.sums[place] = weight;
    task.targets[place] = target;
  }
}

__global__ void __launch_bounds__(kThreads) draw_kernel(AdmmSums task, const float* targets, float penalty, float* drawn) {
  for (std::size_t column = threadIdx.x; column < task.columns; column += kThreads) {
    const std::size_t place = blockIdx.x * task.columns + column;
    const float to = is_dropped(task, blockIdx.x, column) ? -task.sums[place] : task.sums[place];
    drawn[place] = fmaf(penalty, to, targets[place]);
  }
}

__global__ void __launch_bounds__(kThreads) move_kernel(AdmmSums task, const float* solution) {
  for (std::size_t column = threadIdx.x; column < task.columns; column += kThreads) {
    const std::size_t place = blockIdx.x * task.columns + column;
    task.sums[place] = solution[place] + (is_dropped(task, blockIdx.x, column) ? task.sums[place] : 0.0F);
  }
}

__global__ void __launch_bounds__(kThreads) finish_kernel(AdmmSums task, const float* norms) {
  for (std::size_t column = threadIdx.x; column < task.columns; column += kThreads) {
    const std::size_t place = blockIdx.x * task.columns + column;
    task.sums[place] = is_dropped(task, blockIdx.x, column) ? 0.0F : task.sums[place] / norms[column];
  }
}

template <class... Parameters, class... Arguments>
cudaError_t launch_rows(void (*kernel)(Parameters...), std::size_t rows, cudaStream_t stream, Arguments... arguments) {
  if (rows == 0) return cudaSuccess;
  return launch(kernel, dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, stream, arguments...);
}

}  // namespace

cudaError_t start_admm(const AdmmStart& task, cudaStream_t stream) { return launch_rows(start_kernel, task.rows, stream, task); }

cudaError_t draw_admm(const AdmmSums& task, const float* targets, float penalty, float* drawn, cudaStream_t stream) {
  return launch_rows(draw_kernel, task.rows, stream, task, targets, penalty, drawn);
}

cudaError_t move_admm(const AdmmSums& task, const float* solution, cudaStream_t stream) {
  return launch_rows(move_kernel, task.rows, stream, task, solution);
}

cudaError_t finish_admm(const AdmmSums& task, const float* norms, cudaStream_t stream) {
  return launch_rows(finish_kernel, task.rows, stream, task, norms);
}

}  // namespace secateur::gpu

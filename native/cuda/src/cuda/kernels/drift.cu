#include "cuda/kernels/drift.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 256;

// A block per token.
__global__ void __launch_bounds__(kThreads) drift_kernel(DriftTask task, bool subtract) {
  const float* const values = task.values + blockIdx.x * task.width;
  float* const drift = task.drift + blockIdx.x * task.drift_width + task.first;
  for (std::size_t column = threadIdx.x; column < task.width; column += kThreads) {
    drift[column] = subtract ? drift[column] - values[column] : values[column];
  }
}

cudaError_t launch_tokens(const DriftTask& task, bool subtract, cudaStream_t stream) {
  if (task.tokens == 0) return cudaSuccess;
  return launch(drift_kernel, dim3(static_cast<unsigned>(task.tokens)), dim3(kThreads), 0, stream, task, subtract);
}

}  // namespace

cudaError_t begin_drift(const DriftTask& task, cudaStream_t stream) { return launch_tokens(task, false, stream); }

cudaError_t finish_drift(const DriftTask& task, cudaStream_t stream) { return launch_tokens(task, true, stream); }

}  // namespace secateur::gpu

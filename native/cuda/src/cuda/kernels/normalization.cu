#include "cuda/kernels/block_sum.h"
#include "cuda/kernels/normalization.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 256;

template <bool Centred>
__global__ void __launch_bounds__(kThreads) normalize_rows(NormalizationTask task) {
  SECATEUR_SHARED(BlockSums<kThreads>, sums);
  const std::size_t token = blockIdx.x;
  const float* const input = task.input + token * task.size;
  float* const output = task.output + token * task.size;
  const double size = static_cast<double>(task.size);
  double mean = 0;
  if (Centred) {
    double sum = 0;
    for (std::size_t i = threadIdx.x; i < task.size; i += kThreads) sum += static_cast<double>(input[i]);
    mean = block_sum(sum, sums) / size;
  }
  double squares = 0;
  for (std::size_t i = threadIdx.x; i < task.size; i += kThreads) {
    const double difference = static_cast<double>(input[i]) - mean;
    squares += difference * difference;
  }
  const float scale = static_cast<float>(1.0 / sqrt(block_sum(squares, sums) / size + task.epsilon));
  const float shift = static_cast<float>(mean);
  for (std::size_t i = threadIdx.x; i < task.size; i += kThreads) {
    output[i] = Centred ? (input[i] - shift) * scale * task.weight[i] + task.bias[i] : input[i] * scale * task.weight[i];
  }
}

}  // namespace

cudaError_t rms_norm(const NormalizationTask& task, cudaStream_t stream) {
  if (task.tokens == 0 || task.size == 0) return cudaSuccess;
  return launch(normalize_rows<false>, dim3(static_cast<unsigned>(task.tokens)), dim3(kThreads), 0, stream, task);
}

cudaError_t layer_norm(const NormalizationTask& task, cudaStream_t stream) {
  if (task.tokens == 0 || task.size == 0) return cudaSuccess;
  return launch(normalize_rows<true>, dim3(static_cast<unsigned>(task.tokens)), dim3(kThreads), 0, stream, task);
}

}  // namespace secateur::gpu

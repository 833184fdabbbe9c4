#include "cuda/kernels/rotary.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 128;

__global__ void __launch_bounds__(kThreads) rotate_kernel(RotaryTask task) {
  const std::size_t token = blockIdx.x;
  const std::size_t half = task.head_dimension / 2;
  const std::size_t position = token % task.sequence_length;
  float* const states = task.states + token * task.heads * task.head_dimension;
  for (std::size_t i = threadIdx.x; i < task.heads * half; i += kThreads) {
    const std::size_t pair = i % half;
    float* const head = states + i / half * task.head_dimension;
    const float cosine = task.cosines[position * half + pair];
    const float sine = task.sines[position * half + pair];
    const float first = head[pair];
    const float second = head[pair + half];
    head[pair] = first * cosine - second * sine;
    head[pair + half] = second * cosine + first * sine;
  }
}

}  // namespace

cudaError_t rotate(const RotaryTask& task, cudaStream_t stream) {
  if (task.tokens == 0 || task.heads == 0 || task.head_dimension == 0) return cudaSuccess;
  return launch(rotate_kernel, dim3(static_cast<unsigned>(task.tokens)), dim3(kThreads), 0, stream, task);
}

}  // namespace secateur::gpu

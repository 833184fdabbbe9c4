#include "cuda/kernels/embedding.h"
#include "cuda/tensor_core.h"

namespace secateur::gpu {
namespace {

constexpr unsigned kThreads = 128;

template <class Stored>
__global__ void __launch_bounds__(kThreads) embed_kernel(EmbeddingTask task) {
  const std::size_t token = blockIdx.x;
  const Stored* const row = static_cast<const Stored*>(task.table) + static_cast<std::size_t>(task.ids[token]) * task.size;
  float* const states = task.states + token * task.size;
  const std::size_t position = token % task.sequence_length;
  for (std::size_t i = threadIdx.x; i < task.size; i += kThreads) {
    float value = widen(row[i]);
    if (task.positions != nullptr) value += task.positions[position * task.size + i];
    states[i] = value;
  }
}

}  // namespace

cudaError_t embed(const EmbeddingTask& task, cudaStream_t stream) {
  if (task.tokens == 0 || task.size == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(task.tokens));
  switch (task.stored_type) {
    case StoredType::kF32:
      return launch(embed_kernel<float>, grid, dim3(kThreads), 0, stream, task);
    case StoredType::kF16:
      return launch(embed_kernel<float16>, grid, dim3(kThreads), 0, stream, task);
    case StoredType::kBF16:
      return launch(embed_kernel<bfloat16>, grid, dim3(kThreads), 0, stream, task);
  }
  return cudaErrorInvalidValue;
}

}  // namespace secateur::gpu

// How far the inputs of the pruned model are from those of the dense one, token by token.
#pragma once

#include <cstddef>

#include "cuda/gpu.h"

namespace secateur::gpu {

// All device memory, float32.
struct DriftTask {
  std::size_t tokens;
  // [tokens, width]
  const float* values;
  std::size_t width;
  // [tokens, drift_width], of which `width` columns from `first` on.
  float* drift;
  std::size_t drift_width;
  std::size_t first;
};

// drift = values: those of the dense model.
cudaError_t begin_drift(const DriftTask& task, cudaStream_t stream);
// drift -= values: those of the pruned one.
cudaError_t finish_drift(const DriftTask& task, cudaStream_t stream);

}  // namespace secateur::gpu

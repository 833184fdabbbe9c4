// RMS and layer normalisation of rows.
#pragma once

#include <cstddef>

#include "cuda/gpu.h"

namespace secateur::gpu {

// All device memory; matrices [tokens, size], row-major.
struct NormalizationTask {
  std::size_t tokens;
  std::size_t size;
  double epsilon;
  const float* input;
  // [size]
  const float* weight;
  // [size], layer normalisation only.
  const float* bias;
  // Out; may be the input.
  float* output;
};

// input / rms(input) · weight, with epsilon inside the root; the mean square in float64.
cudaError_t rms_norm(const NormalizationTask& task, cudaStream_t stream);
// (input - mean) / deviation · weight + bias.
cudaError_t layer_norm(const NormalizationTask& task, cudaStream_t stream);

}  // namespace secateur::gpu

// Sums of squares of each column of the inputs, one for every sample.
#pragma once

#include <cstddef>

#include "cuda/gpu.h"

namespace secateur::gpu {

// inputs: device [samples, tokens, columns]; sums: device [samples, columns], overwritten. Float64; each sum is added in an order that
// depends on tokens and columns alone. At most 65535 samples.
struct ColumnSumsTask {
  std::size_t samples;
  std::size_t tokens;
  std::size_t columns;
  const float* inputs;
  double* sums;
};

cudaError_t column_sums_of_squares(const ColumnSumsTask& task, cudaStream_t stream);

}  // namespace secateur::gpu

// Sum of squares of each column of the inputs.
#pragma once

#include <cstddef>

#include "cuda/gpu.h"

namespace secateur::gpu {

// inputs: device [tokens, columns]; sums: device [columns], overwritten. Float64, added in an order that depends on the shape alone.
cudaError_t column_sums_of_squares(const float* inputs, std::size_t tokens, std::size_t columns, double* sums, cudaStream_t stream);

}  // namespace secateur::gpu

// Gram matrix of the columns of the inputs, added up over calls.
#pragma once

#include <cstddef>

#include "cuda/gpu.h"

namespace secateur::gpu {

// All device memory, row-major.
struct GramMatrixTask {
  std::size_t tokens;
  std::size_t columns;
  // [tokens, columns]
  const float* inputs;
  // [columns, columns], in and out; symmetric, of which the upper half is read.
  double* sums;
};

// sums += inputsᵀ · inputs. Products and sums of a few tokens in float32, sums of those in float64, in an order that depends on the shape
// alone. Exactly symmetric.
cudaError_t add_gram_matrix(const GramMatrixTask& task, cudaStream_t stream);

}  // namespace secateur::gpu

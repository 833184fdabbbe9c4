// What comes before and after the factor of a Gram matrix's inverse (inverse_factor.h).
#pragma once

#include <cstddef>

#include "cuda/gpu.h"

namespace secateur::gpu {

// All device memory; matrices [columns, columns].
struct WidenGramTask {
  std::size_t columns;
  const float* gram;
  // [columns]: rows and columns are divided by them; null for none.
  const float* norms;
  // To the diagonal.
  float added;
  double* result;
};

cudaError_t widen_gram(const WidenGramTask& task, cudaStream_t stream);

// result[i, t] = factor[t, i] for t <= i, else 0: Uᵀ for the upper factor U, of which only that half is read.
cudaError_t transpose_factor(const double* factor, std::size_t columns, float* result, cudaStream_t stream);
// result[j, i] = matrix[i, j]; square.
cudaError_t transpose(const float* matrix, std::size_t columns, float* result, cudaStream_t stream);

}  // namespace secateur::gpu

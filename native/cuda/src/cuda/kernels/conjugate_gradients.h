// Kept weights fitted to the dense output by conjugate gradients (cpu/repair/fit_weights.h), all rows side by side. Products with the Gram
// matrix are made elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/gpu.h"

namespace secateur::gpu {

// All device memory; matrices [rows, columns].
struct ConjugateGradientsTask {
  std::size_t rows;
  std::size_t columns;
  // Of the diagonal of the Gram matrix.
  float damping;
  // [rows, ceil(columns / 8)]
  const std::uint8_t* mask;
  // [columns]: of the damped Gram matrix.
  const float* inverse_diagonal;
  // direction · Gram matrix, not damped.
  const float* product;
  float* direction;
  float* residual;
  float* fitted;
  // [rows]: residual · preconditioned residual.
  double* progress;
};

// The direction given is what the fit is to make up for, the target minus the fitted weights; it becomes the first one.
cudaError_t begin_conjugate_gradients(const ConjugateGradientsTask& task, cudaStream_t stream);
// A step along the direction, which then becomes the next one. A row that is fitted as well as float32 can stays as it is.
cudaError_t step_conjugate_gradients(const ConjugateGradientsTask& task, cudaStream_t stream);

}  // namespace secateur::gpu

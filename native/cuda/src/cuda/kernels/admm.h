// What a choice of masks by ADMM (cpu/repair/admm.h) does with every weight by itself; in terms scaled so that input columns have norm 1.
// Weights and multipliers are kept as one, their sum: where the mask keeps a weight it is the weight, elsewhere the multiplier.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/gpu.h"

namespace secateur::gpu {

// All device memory; matrices [rows, columns], masks [rows, ceil(columns / 8)].
struct AdmmStart {
  std::size_t rows;
  std::size_t columns;
  const float* weights;
  // weights · Gram matrix.
  const float* products;
  // [columns]: norms of the inputs.
  const float* norms;
  float damping;
  // Out.
  float* sums;
  float* targets;
};

// sums = weights · norms, targets = products / norms + damping · sums.
cudaError_t start_admm(const AdmmStart& task, cudaStream_t stream);

struct AdmmSums {
  std::size_t rows;
  std::size_t columns;
  const std::uint8_t* mask;
  float* sums;
};

// drawn = targets + penalty · (weight - multiplier).
cudaError_t draw_admm(const AdmmSums& task, const float* targets, float penalty, float* drawn, cudaStream_t stream);
// sums = solution + multiplier.
cudaError_t move_admm(const AdmmSums& task, const float* solution, cudaStream_t stream);
// sums = weights / norms.
cudaError_t finish_admm(const AdmmSums& task, const float* norms, cudaStream_t stream);

}  // namespace secateur::gpu

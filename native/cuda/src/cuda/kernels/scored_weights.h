// Scores |W| · scale of the weights of a whole matrix.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/gpu.h"

namespace secateur::gpu {

// Device memory. The key of a score is its bits, which are ordered as scores are.
struct ScoredWeights {
  std::size_t rows;
  std::size_t columns;
  // [rows, columns]
  const float* weights;
  // [columns], or null for 1.
  const float* scales;
};

#if defined(SECATEUR_KERNEL_CODE)

__device__ inline float score_of(float weight, const ScoredWeights& scored, std::size_t column) {
  return scored.scales == nullptr ? fabsf(weight) : fabsf(weight) * scored.scales[column];
}

__device__ inline float score_at(const ScoredWeights& scored, std::size_t row, std::size_t column) {
  return score_of(scored.weights[row * scored.columns + column], scored, column);
}

__device__ inline std::uint32_t key_at(const ScoredWeights& scored, std::size_t row, std::size_t column) {
  return __float_as_uint(score_at(scored, row, column));
}

#endif

}  // namespace secateur::gpu

// Scores of a whole matrix: their sums, and how many lie where.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/kernels/scored_weights.h"

namespace secateur::gpu {

// sums: [rows], float64, each added in an order that depends on the number of columns alone.
cudaError_t sum_scores(const ScoredWeights& scored, double* sums, cudaStream_t stream);
// counts: [rows]: keys from lowest to highest, both among them.
cudaError_t count_keys(const ScoredWeights& scored, std::uint32_t lowest, std::uint32_t highest, std::uint32_t* counts,
                       cudaStream_t stream);

}  // namespace secateur::gpu

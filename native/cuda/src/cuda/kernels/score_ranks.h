// Scores |W| · scale of a whole matrix: their sums, how many lie where, and the matrix without the lowest of them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/gpu.h"

namespace secateur::gpu {

// All pointers here are device memory. The key of a score is its bits, which are ordered as scores are.
struct ScoredWeights {
  std::size_t rows;
  std::size_t columns;
  // [rows, columns]
  const float* weights;
  // [columns]
  const float* scales;
};

// Parts that digits are counted in, and the digits there are.
inline constexpr std::size_t kDigitParts = 256;
inline constexpr std::size_t kScoreDigits = 256;

// sums: [rows], float64, each added in an order that depends on the number of columns alone.
cudaError_t sum_scores(const ScoredWeights& scored, double* sums, cudaStream_t stream);
// counts: [rows]: keys from lowest to highest, both among them.
cudaError_t count_keys(const ScoredWeights& scored, std::uint32_t lowest, std::uint32_t highest, std::uint32_t* counts,
                       cudaStream_t stream);
// counts: [kDigitParts, kScoreDigits]: how often each value of the eight bits at `shift` occurs in the keys whose higher bits are those of
// `prefix`; the sum over the parts counts.
cudaError_t count_digits(const ScoredWeights& scored, unsigned shift, std::uint32_t prefix, std::uint32_t* counts, cudaStream_t stream);
// rest: [rows, columns]: the weights, but for 0 where the key is below `key`, or is equal to it and one of the first `equal` of its row
// that are. equal: [rows].
cudaError_t drop_lowest(const ScoredWeights& scored, std::uint32_t key, const std::uint32_t* equal, float* rest, cudaStream_t stream);

}  // namespace secateur::gpu

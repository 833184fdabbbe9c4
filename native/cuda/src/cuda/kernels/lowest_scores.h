// The lowest scores of a whole matrix, found and dropped without waiting for the host.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/kernels/scored_weights.h"

namespace secateur::gpu {

// Parts of the rows, at most, that digits are counted in, and the values of a digit.
inline constexpr std::size_t kDigitParts = 256;
inline constexpr std::size_t kDigitValues = 256;

// Device memory. Which scores are the lowest: those whose key is below `key`, and of those equal to it the first of each row.
struct LowestScores {
  // [kDigitParts, kDigitValues], scratch.
  std::uint32_t* digits;
  // [1]
  std::uint64_t* left;
  // [1]
  std::uint32_t* key;
  // [rows]: so many of those that are equal to it.
  std::uint32_t* equal;
};

// Of scores that are equal to the highest of the lowest: those that come first in the matrix, as long as there are to be more, or all.
enum class EqualScores { kFirst, kAll };

// count: 0 to rows · columns.
cudaError_t find_lowest(const ScoredWeights& scored, std::uint64_t count, EqualScores equal, const LowestScores& lowest,
                        cudaStream_t stream);
// rest: [rows, columns]: the weights, but for 0 where the score is one of the lowest.
cudaError_t drop_lowest(const ScoredWeights& scored, const LowestScores& lowest, float* rest, cudaStream_t stream);
// mask: [rows, ceil(columns / 8)]: least significant bit first, 1 where the score is one of the lowest.
cudaError_t mark_lowest(const ScoredWeights& scored, const LowestScores& lowest, std::uint8_t* mask, cudaStream_t stream);

}  // namespace secateur::gpu

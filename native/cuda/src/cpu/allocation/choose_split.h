// What the optimal split is compared with and what becomes of it, for every backend.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "lower_hulls.h"
#include "metrics.h"
#include "secateur/allocation.h"

namespace secateur::allocation {

struct SplitRows {
  std::size_t rows;
  std::size_t columns;
  std::size_t samples;
  float target;

  // Weights that a row drops where all drop the same share, and the most that the split lets one drop.
  std::size_t uniform_count() const;
  std::size_t highest_count() const;
};

// Uniform rows unless those counts have less error. outputs_at: the output of a row that drops so many weights next to the dense one. What
// is dropped, and the mask, are left to the caller.
AllocatedRows choose_split(const SplitRows& split, const std::vector<std::size_t>& counts, const ErrorCurves& errors,
                           const std::function<OutputSums(std::size_t row, std::size_t count)>& outputs_at);

}  // namespace secateur::allocation

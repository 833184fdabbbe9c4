// Scores of a block that stand out, as OWL counts them. Formula: docs/algorithms.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cpu/projection.h"
#include "secateur/backend.h"
#include "secateur/memory_budget.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

struct ScoredWeight {
  const Matrix* weight = nullptr;
  // [columns]
  std::span<const float> mean_squares;
};

// Over the scores |W| · √mean_squares of all the weights together: how many are above `threshold` times their mean. The mean is a float64
// sum in the order of the rows. Throws InvalidArgument or NonFinite naming the input that cannot be scored with.
OutlierCount count_outliers(std::span<const ScoredWeight> weights, double threshold, MemoryBudget& budget, ThreadPool& pool,
                            CallContext& context);

// What it takes of the budget.
std::uint64_t outlier_scratch_bytes(std::size_t rows, std::size_t columns);

}  // namespace secateur::cpu

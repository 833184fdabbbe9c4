// The search as published: every step evaluates the pruned output anew. Slow and plain; the engine is compared with it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "secateur/allocation.h"

namespace secateur::test {

struct Evaluation {
  double layer_quality = 0;
  std::vector<double> row_qualities;
};

// Qualities when row i drops the first counts[i] weights of its order.
using Evaluate = std::function<Evaluation(const std::vector<std::int32_t>& counts)>;

struct ReferenceRows {
  double baseline_quality = 0;
  double best_quality = 0;
  std::optional<double> learning_rate;
  std::optional<int> best_step;
  std::vector<float> row_sparsities;
  std::vector<std::int32_t> dropped_per_row;
  std::size_t evaluations = 0;
};

// Rows below 512: the order of the means' sums is written out for those only.
ReferenceRows search_by_evaluation(std::size_t rows, std::size_t columns, double target, const AllocationOptions& options,
                                   const Evaluate& evaluate);

// [rows, columns]: columns by ascending score, ties by column.
std::vector<std::vector<std::uint32_t>> reference_orders(const AllocationInput& input, Score score);

// Everything in float64.
// The input must outlive it.
Evaluate reference_evaluation(const AllocationInput& input, std::vector<std::vector<std::uint32_t>> orders);

}  // namespace secateur::test

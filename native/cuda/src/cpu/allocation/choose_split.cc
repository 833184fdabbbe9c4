#include "choose_split.h"

#include <algorithm>
#include <utility>

#include "candidate.h"
#include "search.h"
#include "search_arithmetic.h"

namespace secateur::allocation {

std::size_t SplitRows::uniform_count() const { return dropped_count(columns, target); }

std::size_t SplitRows::highest_count() const { return std::max(dropped_count(columns, kHighestSparsity), uniform_count()); }

AllocatedRows choose_split(const SplitRows& split, const std::vector<std::size_t>& counts, const ErrorCurves& errors,
                           const std::function<OutputSums(std::size_t row, std::size_t count)>& outputs_at) {
  const std::vector<std::size_t> uniform_counts(split.rows, split.uniform_count());
  const auto error_of = [&](const std::vector<std::size_t>& dropped) {
    double sum = 0;
    for (std::size_t row = 0; row < split.rows; ++row) sum += errors.at(row, dropped[row]);
    return sum;
  };
  const auto candidate_of = [&](const std::vector<std::size_t>& dropped, std::vector<float> sparsities) {
    OutputComparison outputs(split.rows, split.samples);
    for (std::size_t row = 0; row < split.rows; ++row) outputs.rows[row] = outputs_at(row, dropped[row]);
    Candidate candidate{.sparsities = std::move(sparsities), .row_qualities = {}};
    measure(candidate, outputs, {});
    measure_variance(candidate, outputs, {});
    return candidate;
  };
  AllocatedRows result = keep_uniform(candidate_of(uniform_counts, std::vector<float>(split.rows, split.target)));
  if (!(error_of(counts) < error_of(uniform_counts))) return result;
  std::vector<float> sparsities(split.rows);
  std::ranges::transform(counts, sparsities.begin(), [&](std::size_t count) { return sparsity_dropping(split.columns, count); });
  Candidate best = candidate_of(counts, std::move(sparsities));
  result.best_quality = best.quality;
  result.variance_after = best.cosine_variance;
  result.row_sparsities = std::move(best.sparsities);
  return result;
}

}  // namespace secateur::allocation

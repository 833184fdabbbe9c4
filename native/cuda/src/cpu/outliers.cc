#include "cpu/outliers.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "cpu/allocation/checked_input.h"
#include "cpu/vector_math.h"

namespace secateur::cpu {

namespace {

constexpr std::size_t kRows = 64;

std::size_t parts_of(std::size_t rows) { return (rows + kRows - 1) / kRows; }

// A part of the rows of one of the weights.
struct Part {
  const Matrix* weight = nullptr;
  const float* scales = nullptr;
  std::size_t first = 0;
  std::size_t rows = 0;

  const float* row(std::size_t index) const { return weight->values.data() + (first + index) * weight->columns; }
};

// What a function makes of each part, in the order of the parts.
template <class Result, class Function>
std::vector<Result> look_at(const std::vector<Part>& parts, ThreadPool& pool, CallContext& context, const Function& function) {
  std::vector<Result> results(parts.size());
  pool.parallel_for(parts.size(), [&](std::size_t item, std::size_t) {
    context.check();
    const Part& part = parts[item];
    const auto weights = static_cast<double>(part.rows * part.weight->columns);
    const PhaseScope scope(context, "scores", 2 * weights, weights * sizeof(float));
    Result result = 0;
    for (std::size_t row = 0; row < part.rows; ++row) result += function(part.row(row), part.scales, part.weight->columns);
    results[item] = result;
  });
  return results;
}

}  // namespace

OutlierCount count_outliers(std::span<const ScoredWeight> weights, double threshold, MemoryBudget& budget, ThreadPool& pool,
                            CallContext& context) {
  if (!(threshold > 0)) throw Error(ErrorCode::kInvalidArgument, "threshold must be above 0.");
  std::uint64_t bytes = 0;
  for (const ScoredWeight& scored : weights) bytes += outlier_scratch_bytes(scored.weight->rows, scored.weight->columns);
  const Reservation scratch(budget, bytes, "the scores of a block");
  OutlierCount count;
  std::vector<std::vector<float>> scales;
  std::vector<Part> parts;
  for (const ScoredWeight& scored : weights) {
    scales.push_back(allocation::wanda_scales(scored.mean_squares, scored.weight->columns));
    const Matrix& weight = *scored.weight;
    for (std::size_t row = 0; row < weight.rows; row += kRows)
      parts.push_back({&weight, scales.back().data(), row, std::min(kRows, weight.rows - row)});
    count.weights += weight.rows * weight.columns;
  }
  if (count.weights == 0) throw Error(ErrorCode::kInvalidArgument, "There are no weights to count outliers of.");
  const std::vector<double> sums = look_at<double>(parts, pool, context, vector_math().sum_scores);
  count.mean_score = std::accumulate(sums.begin(), sums.end(), 0.0) / static_cast<double>(count.weights);
  const auto limit = static_cast<float>(count.mean_score * threshold);
  const std::vector<std::size_t> counts =
      look_at<std::size_t>(parts, pool, context, [limit](const float* row, const float* row_scales, std::size_t size) {
        return vector_math().count_scores_above(row, row_scales, size, limit);
      });
  count.outliers = std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
  return count;
}

std::uint64_t outlier_scratch_bytes(std::size_t rows, std::size_t columns) {
  return columns * sizeof(float) + parts_of(rows) * (sizeof(Part) + sizeof(double) + sizeof(std::size_t));
}

}  // namespace secateur::cpu

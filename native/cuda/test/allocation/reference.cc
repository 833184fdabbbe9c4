#include "reference.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

namespace secateur::test {
namespace {

float mean_of(const std::vector<float>& values) {
  std::array<std::array<float, 8>, 4> sums{};
  std::size_t i = 0;
  for (; i + 32 <= values.size(); i += 32) {
    for (std::size_t j = 0; j < 32; ++j) sums[j / 8][j % 8] += values[i + j];
  }
  for (; i + 8 <= values.size(); i += 8) {
    for (std::size_t j = 0; j < 8; ++j) sums[0][j] += values[i + j];
  }
  float total = 0;
  for (; i < values.size(); ++i) total += values[i];
  for (std::size_t j = 0; j < 8; ++j) total += ((sums[0][j] + sums[1][j]) + sums[2][j]) + sums[3][j];
  return total / static_cast<float>(values.size());
}

void clip_and_recentre(std::vector<float>& sparsities, float target) {
  for (float& sparsity : sparsities) sparsity = std::clamp(sparsity, 0.0F, 0.95F);
  const float mean = mean_of(sparsities);
  for (float& sparsity : sparsities) sparsity = (sparsity - mean) + target;
}

std::vector<std::int32_t> counts_of(const std::vector<float>& sparsities, std::size_t columns) {
  std::vector<std::int32_t> counts;
  for (const float sparsity : sparsities) {
    const auto count = static_cast<std::int32_t>(std::floor(static_cast<float>(columns) * sparsity));
    counts.push_back(std::clamp(count, 0, static_cast<std::int32_t>(columns)));
  }
  return counts;
}

}  // namespace

ReferenceRows search_by_evaluation(std::size_t rows, std::size_t columns, double target, const AllocationOptions& options,
                                   const Evaluate& evaluate) {
  const float start = target > 0 ? static_cast<float>(target) : 0.01F;
  const std::vector<float> uniform(rows, start);
  ReferenceRows result;
  const auto measure = [&](const std::vector<float>& sparsities) {
    ++result.evaluations;
    return evaluate(counts_of(sparsities, columns));
  };
  const Evaluation baseline = measure(uniform);
  result.baseline_quality = result.best_quality = baseline.layer_quality;
  result.row_sparsities = uniform;

  for (const std::vector<double>* rates : {&options.learning_rates, &options.negative_learning_rates}) {
    if (result.learning_rate) break;
    for (const double rate : *rates) {
      bool improved = false;
      std::vector<float> sparsities = uniform;
      Evaluation current = baseline;
      for (int step = 0; step < options.iterations; ++step) {
        const auto [low, high] = std::ranges::minmax(current.row_qualities);
        std::vector<double> moves;
        for (const double quality : current.row_qualities) moves.push_back((quality - low) / (high - low + 1e-6) * (2 * rate));
        const double mean = std::accumulate(moves.begin(), moves.end(), 0.0) / static_cast<double>(rows);
        for (std::size_t row = 0; row < rows; ++row) sparsities[row] += static_cast<float>(moves[row] - mean);
        clip_and_recentre(sparsities, start);
        current = measure(sparsities);
        if (current.layer_quality > result.best_quality) {
          improved = true;
          result.best_quality = current.layer_quality;
          result.learning_rate = rate;
          result.best_step = step;
          result.row_sparsities = sparsities;
        }
      }
      if (!improved && rate != rates->front()) break;
    }
  }
  clip_and_recentre(result.row_sparsities, start);
  result.dropped_per_row = counts_of(result.row_sparsities, columns);
  return result;
}

std::vector<std::vector<std::uint32_t>> reference_orders(const AllocationInput& input, Score score) {
  std::vector<std::vector<std::uint32_t>> orders;
  for (std::size_t row = 0; row < input.rows; ++row) {
    std::vector<float> scores(input.columns);
    for (std::size_t column = 0; column < input.columns; ++column) {
      const float magnitude = std::abs(input.weights[row * input.columns + column]);
      scores[column] = score == Score::kWanda ? magnitude * std::sqrt(input.mean_squares[column]) : magnitude;
    }
    std::vector<std::uint32_t> order(input.columns);
    std::iota(order.begin(), order.end(), 0U);
    std::ranges::stable_sort(order, {}, [&](std::uint32_t column) { return scores[column]; });
    orders.push_back(std::move(order));
  }
  return orders;
}

Evaluate reference_evaluation(const AllocationInput& input, std::vector<std::vector<std::uint32_t>> orders) {
  return [&input, orders = std::move(orders)](const std::vector<std::int32_t>& counts) {
    const auto cosine = [](double dot, double a, double b) {
      return std::clamp(dot / ((std::sqrt(a) + 1e-8) * (std::sqrt(b) + 1e-8)), -1.0, 1.0);
    };
    Evaluation evaluation;
    double all_dot = 0;
    double all_dense = 0;
    double all_pruned = 0;
    for (std::size_t row = 0; row < input.rows; ++row) {
      std::vector<bool> dropped(input.columns);
      for (std::size_t j = 0; j < static_cast<std::size_t>(counts[row]); ++j) dropped[orders[row][j]] = true;
      double dot = 0;
      double dense_norm = 0;
      double pruned_norm = 0;
      for (std::size_t sample = 0; sample < input.samples; ++sample) {
        double dense = 0;
        double pruned = 0;
        for (std::size_t column = 0; column < input.columns; ++column) {
          const double product = static_cast<double>(input.weights[row * input.columns + column]) *
                                 static_cast<double>(input.quality_inputs[sample * input.columns + column]);
          dense += product;
          if (!dropped[column]) pruned += product;
        }
        dot += dense * pruned;
        dense_norm += dense * dense;
        pruned_norm += pruned * pruned;
      }
      evaluation.row_qualities.push_back(cosine(dot, dense_norm, pruned_norm));
      all_dot += dot;
      all_dense += dense_norm;
      all_pruned += pruned_norm;
    }
    evaluation.layer_quality = cosine(all_dot, all_dense, all_pruned);
    return evaluation;
  };
}

}  // namespace secateur::test

#include "candidate.h"

#include <algorithm>
#include <array>
#include <cstddef>

#include "search_arithmetic.h"

namespace secateur::allocation {
namespace {

float ordered_sum(std::span<const float> values) {
  std::array<float, kSumStrands> strand_sums{};
  for (std::size_t strand = 0; strand < kSumStrands; ++strand) {
    strand_sums[strand] = strand_sum(values.data() + strand, values.size() / kSumStrands);
  }
  return sum_of_strands(strand_sums.data(), values.data(), values.size());
}

}  // namespace

void measure(Candidate& candidate, const OutputComparison& outputs, const Metrics& metrics) {
  candidate.row_qualities.resize(outputs.rows.size());
  row_qualities(metrics.row, outputs, candidate.row_qualities);
  candidate.quality = layer_quality(metrics.layer, outputs);
}

void measure_variance(Candidate& candidate, const OutputComparison& outputs, const Metrics& metrics) {
  if (metrics.row == RowQuality::kCosim) {
    candidate.cosine_variance = variance(candidate.row_qualities);
    return;
  }
  std::vector<double> cosines(outputs.rows.size());
  row_qualities(RowQuality::kCosim, outputs, cosines);
  candidate.cosine_variance = variance(cosines);
}

void move_sparsities(Candidate& candidate, double learning_rate, float target, std::span<double> moves) {
  const auto [lowest, highest] = std::ranges::minmax(candidate.row_qualities);
  double mean = 0;
  for (std::size_t row = 0; row < moves.size(); ++row) {
    moves[row] = move_of(candidate.row_qualities[row], lowest, highest, learning_rate);
    mean += moves[row];
  }
  mean /= static_cast<double>(moves.size());
  for (std::size_t row = 0; row < moves.size(); ++row) candidate.sparsities[row] = moved(candidate.sparsities[row], moves[row], mean);
  clip_and_recentre(candidate.sparsities, target);
}

void clip_and_recentre(std::span<float> sparsities, float target) {
  for (float& sparsity : sparsities) sparsity = clipped(sparsity);
  const float mean = ordered_sum(sparsities) / static_cast<float>(sparsities.size());
  for (float& sparsity : sparsities) sparsity = recentred(sparsity, mean, target);
}

double variance(std::span<const double> values) {
  if (values.size() < 2) return 0;
  double mean = 0;
  for (const double value : values) mean += value;
  mean /= static_cast<double>(values.size());
  double sum = 0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  return sum / static_cast<double>(values.size() - 1);
}

}  // namespace secateur::allocation

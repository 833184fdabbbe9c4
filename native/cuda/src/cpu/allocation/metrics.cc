#include "metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace secateur::allocation {
namespace {

// Keeps the logarithms of exact outputs finite, and those of silent ones: silence without an error has 0 dB.
constexpr double kErrorEpsilon = 1e-10;

double mean_squared_error(const OutputSums& sums, double values) { return sums.squared_error / values; }

double decibels(double signal, double error) { return 10 * std::log10((signal > 0 ? signal : kErrorEpsilon) / (error + kErrorEpsilon)); }

double peak_signal_to_noise(const OutputSums& sums, double values) { return decibels(sums.peak_square, mean_squared_error(sums, values)); }

double signal_to_noise(const OutputSums& sums, double values) {
  const double error = mean_squared_error(sums, values);
  return error < kErrorEpsilon ? std::numeric_limits<double>::infinity() : decibels(sums.products.dense_squared_norm / values, error);
}

OutputSums sum_of(const std::vector<OutputSums>& parts) {
  OutputSums sums;
  for (const OutputSums& part : parts) sums.add(part);
  return sums;
}

template <class Quality>
double mean_over(const std::vector<OutputSums>& parts, Quality quality) {
  double sum = 0;
  for (const OutputSums& part : parts) sum += quality(part);
  return sum / static_cast<double>(parts.size());
}

double cosine_of(const OutputSums& sums) { return cosine(sums.products); }

// Some rows at a time, so that they share vector instructions.
void set_cosines(std::span<const OutputSums> rows, std::span<double> cosines) {
  constexpr std::size_t kTogether = 16;
  std::array<double, kTogether> inner_products{};
  std::array<double, kTogether> dense{};
  std::array<double, kTogether> pruned{};
  for (std::size_t first = 0; first < rows.size(); first += kTogether) {
    const std::span<const OutputSums> together = rows.subspan(first, std::min(kTogether, rows.size() - first));
    for (std::size_t i = 0; i < together.size(); ++i) {
      inner_products[i] = together[i].products.inner_product;
      dense[i] = together[i].products.dense_squared_norm;
      pruned[i] = together[i].products.pruned_squared_norm;
    }
    for (std::size_t i = 0; i < kTogether; ++i) inner_products[i] = cosine({inner_products[i], dense[i], pruned[i]});
    std::copy_n(inner_products.begin(), together.size(), cosines.begin() + static_cast<std::ptrdiff_t>(first));
  }
}

}  // namespace

double peak_square(std::span<const float> outputs) {
  double peak = 0;
  for (const float output : outputs) peak = std::max(peak, static_cast<double>(output) * static_cast<double>(output));
  return peak;
}

void row_qualities(RowQuality metric, const OutputComparison& outputs, std::span<double> qualities) {
  const auto values = static_cast<double>(outputs.samples.size());
  const auto set = [&](auto quality) {
    for (std::size_t row = 0; row < qualities.size(); ++row) qualities[row] = quality(outputs.rows[row]);
  };
  switch (metric) {
    case RowQuality::kCosim:
      return set_cosines(outputs.rows, qualities);
    case RowQuality::kMse:
      return set([&](const OutputSums& row) { return -mean_squared_error(row, values); });
    case RowQuality::kPsnr:
      return set([&](const OutputSums& row) { return peak_signal_to_noise(row, values); });
  }
}

double layer_quality(LayerQuality metric, const OutputComparison& outputs) {
  const auto row_values = static_cast<double>(outputs.samples.size());
  const auto sample_values = static_cast<double>(outputs.rows.size());
  const double values = row_values * sample_values;
  switch (metric) {
    case LayerQuality::kCosimFlat:
      return cosine_of(sum_of(outputs.rows));
    case LayerQuality::kCosimDim:
      return mean_over(outputs.rows, cosine_of);
    case LayerQuality::kCosimSample:
      return mean_over(outputs.samples, cosine_of);
    case LayerQuality::kMse:
      return -mean_squared_error(sum_of(outputs.rows), values);
    case LayerQuality::kMseDim:
      return -mean_over(outputs.rows, [&](const OutputSums& row) { return mean_squared_error(row, row_values); });
    case LayerQuality::kMae: {
      double sum = 0;
      for (const double error : outputs.absolute_errors) sum += error;
      return -sum / values;
    }
    case LayerQuality::kSnr:
      return signal_to_noise(sum_of(outputs.rows), values);
    case LayerQuality::kPsnrFlat:
      return peak_signal_to_noise(sum_of(outputs.rows), values);
    case LayerQuality::kPsnrDim:
      return mean_over(outputs.rows, [&](const OutputSums& row) { return peak_signal_to_noise(row, row_values); });
    case LayerQuality::kPsnrSample:
      return mean_over(outputs.samples, [&](const OutputSums& sample) { return peak_signal_to_noise(sample, sample_values); });
    case LayerQuality::kPass:
      return 1;
  }
  return 0;
}

}  // namespace secateur::allocation

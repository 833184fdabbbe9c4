#include "metrics.h"

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

}  // namespace

double peak_square(std::span<const float> outputs) {
  double peak = 0;
  for (const float output : outputs) peak = std::max(peak, static_cast<double>(output) * static_cast<double>(output));
  return peak;
}

double row_quality(RowQuality metric, const OutputSums& row, std::size_t samples) {
  const auto values = static_cast<double>(samples);
  switch (metric) {
    case RowQuality::kCosim:
      return cosine_of(row);
    case RowQuality::kMse:
      return -mean_squared_error(row, values);
    case RowQuality::kPsnr:
      return peak_signal_to_noise(row, values);
  }
  return 0;
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

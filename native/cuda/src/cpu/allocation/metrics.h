// The metrics of the search: how good pruned outputs are. Formulas: docs/algorithms.md.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "quality.h"
#include "secateur/allocation.h"

namespace secateur::allocation {

struct Metrics {
  LayerQuality layer = LayerQuality::kCosimFlat;
  RowQuality row = RowQuality::kCosim;

  // Whether one of them is made of squared errors.
  constexpr bool need_errors() const {
    const bool layer_needs = layer != LayerQuality::kCosimFlat && layer != LayerQuality::kCosimDim && layer != LayerQuality::kPass;
    return layer_needs || row != RowQuality::kCosim;
  }
  // Whether the layer's is made of values of the pruned output itself, not only of the sums over each row that quality curves give.
  constexpr bool need_outputs() const {
    return layer == LayerQuality::kCosimSample || layer == LayerQuality::kPsnrSample || layer == LayerQuality::kMae;
  }
};

// Sums over some values y of the dense output and ŷ of the pruned one that most metrics are made of.
struct OutputSums {
  OutputProducts products;
  // Σ (y − ŷ)²
  double squared_error = 0;
  // max y²
  double peak_square = 0;

  void add(double dense, double pruned) {
    products.inner_product += dense * pruned;
    products.dense_squared_norm += dense * dense;
    products.pruned_squared_norm += pruned * pruned;
    squared_error += (dense - pruned) * (dense - pruned);
    peak_square = std::max(peak_square, dense * dense);
  }
  void add(const OutputSums& other) {
    products.add(other.products);
    squared_error += other.squared_error;
    peak_square = std::max(peak_square, other.peak_square);
  }
};

// Of outputs of a row.
double peak_square(std::span<const float> outputs);

// A pruned output next to the dense one.
struct OutputComparison {
  OutputComparison(std::size_t row_count, std::size_t sample_count)
      : rows(row_count), samples(sample_count), absolute_errors(sample_count) {}
  static std::size_t bytes(std::size_t row_count, std::size_t sample_count) {
    return row_count * sizeof(OutputSums) + sample_count * (sizeof(OutputSums) + sizeof(double));
  }

  std::vector<OutputSums> rows;
  // Only set for metrics that need outputs, as is what follows.
  std::vector<OutputSums> samples;
  // Σ |y − ŷ| of each sample.
  std::vector<double> absolute_errors;
};

// Bigger is better. qualities: [rows], out.
void row_qualities(RowQuality metric, const OutputComparison& outputs, std::span<double> qualities);

// Bigger is better. Infinite for kSnr where the mean squared error is below 1e-10.
double layer_quality(LayerQuality metric, const OutputComparison& outputs);

}  // namespace secateur::allocation

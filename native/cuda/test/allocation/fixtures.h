// The recorded decisions of the published TRIM implementation, read from safetensors files and cases.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "secateur/allocation.h"

namespace secateur::test {

struct TrimCase {
  std::string file;
  std::size_t rows = 0;
  std::size_t columns = 0;
  std::size_t samples = 0;
  bool magnitude = false;
  LayerQuality layer_quality = LayerQuality::kCosimFlat;
  RowQuality row_quality = RowQuality::kCosim;
  bool forbid_negative_rates = false;
  int iterations = 0;
  double target = 0;

  std::vector<float> weights;         // [rows, columns]
  std::vector<float> mean_squares;    // [columns]
  std::vector<float> quality_inputs;  // [samples, columns]

  double baseline_quality = 0;
  double best_quality = 0;
  std::optional<double> learning_rate;
  int best_step = 0;
  double variance_before = 0;
  double variance_after = 0;
  std::vector<float> row_sparsities;          // [rows]
  std::vector<std::int32_t> dropped_per_row;  // [rows]
  std::vector<std::uint8_t> mask;             // [rows, ceil(columns / 8)]

  bool has_default_metrics() const { return layer_quality == LayerQuality::kCosimFlat && row_quality == RowQuality::kCosim; }
  // Of the vectors here.
  AllocationInput input() const;
  AllocationOptions options() const;
};

std::vector<TrimCase> load_trim_cases(const std::string& folder);

}  // namespace secateur::test

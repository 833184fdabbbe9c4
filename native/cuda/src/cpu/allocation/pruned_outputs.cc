#include "pruned_outputs.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

namespace secateur::allocation {
namespace {

// Samples that are compared together; a cache line of each row.
constexpr std::size_t kTileSamples = 8;

std::size_t distance(std::size_t a, std::size_t b) { return a < b ? b - a : a - b; }

}  // namespace

PrunedOutputs::PrunedOutputs(std::size_t rows, const SweepInputs& inputs)
    : inputs_(inputs),
      stride_(inputs.stride()),
      input_norms_(inputs.columns()),
      rounders_(rows),
      counts_(rows),
      dense_(rows * stride_),
      dropped_(rows * stride_) {
  for (std::size_t column = 0; column < input_norms_.size(); ++column) input_norms_[column] = std::sqrt(inputs.squared_norm(column));
}

std::uint64_t PrunedOutputs::scratch_bytes(std::size_t rows, std::size_t columns, std::size_t samples) {
  return columns * sizeof(double) + rows * (sizeof(double) + sizeof(std::size_t)) +
         2 * AlignedArray<double>::bytes(rows * SweepInputs::stride_of(samples));
}

void PrunedOutputs::add_dense(std::size_t row, std::span<const float> weights, SweepBatch& batch) {
  // No product of the row and no sum of them is larger than this.
  double bound = 0;
  for (std::size_t column = 0; column < weights.size(); ++column) {
    bound += std::abs(static_cast<double>(weights[column])) * input_norms_[column];
  }
  int exponent = 0;
  std::frexp(bound, &exponent);
  // The unit is 2^-51 of a power of two above the bound. Adding 1.5 * 2^52 units rounds to whole ones.
  rounders_[row] = std::ldexp(1.5, exponent + 1);
  std::fill_n(dense(row), stride_, 0.0);
  std::fill_n(dropped(row), stride_, 0.0);
  counts_[row] = 0;
  const std::span<std::uint32_t> columns = batch.next_columns(weights.size());
  std::iota(columns.begin(), columns.end(), 0U);
  batch.add_exactly(columns.size(), weights, 1, rounders_[row], dense(row));
}

bool PrunedOutputs::fits_float32(std::size_t row) const {
  return std::all_of(dense(row), dense(row) + stride_, [](double value) { return std::abs(value) <= std::numeric_limits<float>::max(); });
}

std::size_t PrunedOutputs::begin_move(std::size_t row, std::size_t count) {
  const std::size_t columns = inputs_.columns();
  const std::size_t end = count <= columns / 2 ? 0 : columns;
  if (distance(counts_[row], count) > distance(end, count)) {
    counts_[row] = end;
    if (end == 0) {
      std::fill_n(dropped(row), stride_, 0.0);
    } else {
      std::copy_n(dense(row), stride_, dropped(row));
    }
  }
  return counts_[row];
}

void PrunedOutputs::add_move(std::size_t row, std::size_t count, std::span<const float> weights, SweepBatch& batch) {
  const float sign = count > counts_[row] ? 1.0F : -1.0F;
  batch.add_exactly(distance(counts_[row], count), weights, sign, rounders_[row], dropped(row));
  counts_[row] = count;
}

void PrunedOutputs::compare_rows(std::size_t begin, std::size_t end, OutputComparison& outputs) const {
  for (std::size_t row = begin; row < end; ++row) {
    OutputSums sums;
    for (std::size_t sample = 0; sample < inputs_.samples(); ++sample) {
      const double y = dense(row)[sample];
      sums.add(y, y - dropped(row)[sample]);
    }
    outputs.rows[row] = sums;
  }
}

void PrunedOutputs::compare_samples(std::size_t begin, std::size_t end, OutputComparison& outputs) const {
  for (std::size_t first = begin; first < end; first += kTileSamples) {
    const std::size_t width = std::min(kTileSamples, end - first);
    std::array<OutputSums, kTileSamples> sums{};
    std::array<double, kTileSamples> absolute_errors{};
    for (std::size_t row = 0; row < counts_.size(); ++row) {
      for (std::size_t i = 0; i < width; ++i) {
        const double y = dense(row)[first + i];
        const double error = dropped(row)[first + i];
        sums[i].add(y, y - error);
        absolute_errors[i] += std::abs(error);
      }
    }
    std::copy_n(sums.begin(), width, outputs.samples.begin() + static_cast<std::ptrdiff_t>(first));
    std::copy_n(absolute_errors.begin(), width, outputs.absolute_errors.begin() + static_cast<std::ptrdiff_t>(first));
  }
}

}  // namespace secateur::allocation

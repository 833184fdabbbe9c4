#include "checked_input.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "secateur/error.h"

namespace secateur::allocation {
namespace {

constexpr float kLowestTarget = 0.01F;

[[noreturn]] void invalid(const std::string& message) { throw Error(ErrorCode::kInvalidArgument, message); }

}  // namespace

void require_size(std::size_t size, std::size_t expected, const char* name) {
  if (size != expected) {
    invalid(std::string(name) + " has " + std::to_string(size) + " elements; expected " + std::to_string(expected) + ".");
  }
}

void require_valid(const AllocationInput& input, const AllocationOptions& options) {
  const auto require_dimension = [](std::size_t value, const char* name) {
    if (value == 0 || value > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
      invalid(std::string(name) + " is " + std::to_string(value) + "; expected 1 to 2147483647.");
    }
  };
  require_dimension(input.rows, "rows");
  require_dimension(input.columns, "columns");
  require_dimension(input.samples, "samples");
  require_size(input.mean_squares.size(), input.columns, "mean_squares");
  require_size(input.quality_inputs.size(), input.samples * input.columns, "quality_inputs");
  if (!(input.target_sparsity <= 1)) {
    invalid("target_sparsity is " + std::to_string(input.target_sparsity) + "; expected a share of at most 1.");
  }
  if (options.pattern.is_structured()) {
    if (options.allocation != Allocation::kUniform) invalid("A pattern decides what every row drops; the allocation must be uniform.");
    if (options.pattern.dropped == 0 || options.pattern.dropped >= options.pattern.group) {
      invalid("The pattern drops " + std::to_string(options.pattern.dropped) + " of " + std::to_string(options.pattern.group) +
              "; expected at least 1 and less than all.");
    }
  }
  const bool has_defaults = options.layer_quality == LayerQuality::kCosimFlat && options.row_quality == RowQuality::kCosim;
  if (options.allocation != Allocation::kTrim && !has_defaults) {
    invalid("Qualities of layers and rows steer TRIM's search; the allocation must be trim, or they must be cosim_flat and cosim.");
  }
  require_size(input.row_sparsities.size(), options.allocation == Allocation::kGiven ? input.rows : 0, "row_sparsities");
  for (const float sparsity : input.row_sparsities) {
    if (!(sparsity >= -1 && sparsity <= 2)) invalid("A row sparsity is " + std::to_string(sparsity) + "; expected a share of the row.");
  }
  if (options.allocation == Allocation::kTrim && options.iterations < 1) {
    invalid("iterations is " + std::to_string(options.iterations) + "; expected at least 1.");
  }
}

float target_of(const AllocationInput& input) {
  const float target = static_cast<float>(input.target_sparsity);
  return target > 0 ? target : kLowestTarget;
}

std::vector<float> score_scales(const AllocationInput& input, Score score) {
  std::vector<float> scales;
  for (std::size_t column = 0; column < input.columns; ++column) {
    const float mean_square = input.mean_squares[column];
    if (!std::isfinite(mean_square)) {
      throw Error(ErrorCode::kNonFinite, "The mean square of input column " + std::to_string(column) + " is not finite.");
    }
    if (mean_square < 0) invalid("The mean square of input column " + std::to_string(column) + " is negative.");
  }
  if (score == Score::kWanda) {
    scales.resize(input.columns);
    std::ranges::transform(input.mean_squares, scales.begin(), [](float mean_square) { return std::sqrt(mean_square); });
  }
  return scales;
}

std::vector<float> wanda_scales(std::span<const float> mean_squares, std::size_t columns) {
  require_size(mean_squares.size(), columns, "meanSquares");
  AllocationInput input;
  input.columns = columns;
  input.mean_squares = mean_squares;
  return score_scales(input, Score::kWanda);
}

}  // namespace secateur::allocation

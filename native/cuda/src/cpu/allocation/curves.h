// Quality curves: the pruned output of a row at every count of dropped weights, from one sweep over its sorted weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "quality.h"
#include "sweep.h"

namespace secateur::allocation {

// Zeros, aligned for the sweep.
template <class Value>
class AlignedArray {
 public:
  explicit AlignedArray(std::size_t size) : blocks_(size / kPerBlock + (size % kPerBlock != 0)) {}
  Value* data() { return blocks_.data()->values; }
  const Value* data() const { return blocks_.data()->values; }
  static std::uint64_t bytes(std::size_t size) { return (size / kPerBlock + (size % kPerBlock != 0)) * sizeof(Block); }

 private:
  static constexpr std::size_t kPerBlock = 64 / sizeof(Value);
  struct alignas(64) Block {
    Value values[kPerBlock];
  };
  std::vector<Block> blocks_;
};

// The inputs transposed for the sweep: the samples of a column lie together, padded with zeros.
class SweepInputs {
 public:
  SweepInputs(std::size_t columns, std::size_t samples);
  static std::uint64_t scratch_bytes(std::size_t columns, std::size_t samples);

  // inputs: [samples, columns]. Fills columns [begin, end); returns the first of them with a NaN or infinite input, end when none has.
  std::size_t fill(std::span<const float> inputs, std::size_t begin, std::size_t end);

  std::size_t columns() const { return columns_; }
  std::size_t samples() const { return samples_; }
  const float* values() const { return values_.data(); }
  std::size_t stride() const { return stride_; }
  SweepPrecision precision() const { return precision_of(samples_); }
  // Of the running sum of one sweep.
  std::size_t sum_bytes() const { return sum_bytes(samples_); }
  static SweepPrecision precision_of(std::size_t samples);
  static std::size_t sum_bytes(std::size_t samples);
  double squared_norm(std::size_t column) const { return squared_norms_[column]; }

 private:
  std::size_t columns_;
  std::size_t samples_;
  std::size_t stride_;
  AlignedArray<float> values_;
  std::vector<double> squared_norms_;
};

// The two halves of a curve. Each is swept from its own end of the order, adding up the dropped part while little is dropped and the kept
// part while little is kept, so that neither is ever the small difference of two large numbers.
enum class CurveSide { kDropped, kKept };

constexpr std::size_t last_dropped_count(std::size_t columns) { return columns / 2; }
constexpr CurveSide side_of(std::size_t count, std::size_t columns) {
  return count <= last_dropped_count(columns) ? CurveSide::kDropped : CurveSide::kKept;
}
// Weights to add from the side's end to get to `count`, and to get to the last count of the side.
constexpr std::size_t steps_to(CurveSide side, std::size_t count, std::size_t columns) {
  return side == CurveSide::kDropped ? count : columns - count;
}
constexpr std::size_t all_steps(CurveSide side, std::size_t columns) {
  return side == CurveSide::kDropped ? last_dropped_count(columns) : columns - last_dropped_count(columns) - 1;
}

// How far a side of a row is swept. a, b: inner product of the sum so far with the dense output and its squared norm, in units of the dense
// squared norm (point_unit).
struct SweepProgress {
  std::size_t steps = 0;
  double a = 0;
  double b = 0;
};

// Sweeps rows; one per thread.
class CurveBuilder {
 public:
  CurveBuilder(const SweepInputs& inputs, SweepFunction sweep_function);
  static std::uint64_t scratch_bytes(std::size_t columns, std::size_t samples);

  // The row to sweep next. weights: [columns]; dense: [samples], the row's dense output; both must outlive the sweeps.
  void set_row(std::span<const float> weights, std::span<const float> dense, double dense_squared_norm);
  // Goes on where `progress` and `sum` (SweepTask::sum, zeros at first) left off; a point is the same however its sweep is cut.
  // order: the next columns to add, from low scores up for the dropped side, from high ones down for the kept side.
  // points: [columns + 1]; sets those of the next order.size() counts.
  void sweep(CurveSide side, std::span<const std::uint32_t> order, SweepProgress& progress, void* sum, std::span<CurvePoint> points);

 private:
  const SweepInputs& inputs_;
  SweepFunction sweep_;
  std::span<const float> weights_;
  double dense_squared_norm_ = 0;
  AlignedArray<float> dense_;
  std::vector<float> swept_weights_;
  std::vector<Alignment> alignments_;
};

// Curves of all rows of a projection.
class QualityCurves {
 public:
  QualityCurves(std::size_t rows, const SweepInputs& inputs);
  static std::uint64_t scratch_bytes(std::size_t rows, std::size_t columns, std::size_t samples);

  std::size_t rows() const { return dense_squared_norms_.size(); }
  std::size_t columns() const { return columns_; }
  // [columns + 1]
  std::span<CurvePoint> points(std::size_t row) { return {&points_[row * (columns_ + 1)], columns_ + 1}; }
  // Sets the points of both ends.
  void start_row(std::size_t row, double dense_squared_norm);
  double dense_squared_norm(std::size_t row) const { return dense_squared_norms_[row]; }

  SweepProgress& progress(std::size_t row, CurveSide side) { return progress_[slot(row, side)]; }
  void* sum(std::size_t row, CurveSide side) { return sums_.data() + slot(row, side) * sum_bytes_; }
  // Forgets what is swept, for another row's use of the place.
  void restart_row(std::size_t row, double dense_squared_norm);
  bool is_swept(std::size_t row, std::size_t count) const {
    const CurveSide side = side_of(count, columns_);
    return steps_to(side, count, columns_) <= progress_[slot(row, side)].steps;
  }
  // `count` must be swept.
  OutputProducts at(std::size_t row, std::size_t count) const {
    return products_at(points_[row * (columns_ + 1) + count], dense_squared_norms_[row]);
  }

 private:
  static std::size_t slot(std::size_t row, CurveSide side) { return 2 * row + (side == CurveSide::kKept); }

  std::size_t columns_;
  std::size_t sum_bytes_;
  std::unique_ptr<CurvePoint[]> points_;
  std::vector<double> dense_squared_norms_;
  // [rows, sides]
  std::vector<SweepProgress> progress_;
  // [rows, sides, sum_bytes_]
  AlignedArray<std::byte> sums_;
};

}  // namespace secateur::allocation

// Quality curves: the pruned output of a row at every count of dropped weights, from one sweep over its sorted weights.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "metrics.h"
#include "sweep.h"

namespace secateur::allocation {

// Aligned for the sweep; the values are whatever was in memory.
template <class Value>
class AlignedArray {
 public:
  explicit AlignedArray(std::size_t size) : blocks_(std::make_unique_for_overwrite<Block[]>(blocks(size))) {}
  Value* data() { return blocks_[0].values; }
  const Value* data() const { return blocks_[0].values; }
  static std::uint64_t bytes(std::size_t size) { return blocks(size) * sizeof(Block); }

 private:
  static constexpr std::size_t kPerBlock = 64 / sizeof(Value);
  struct alignas(64) Block {
    Value values[kPerBlock];
  };
  static std::size_t blocks(std::size_t size) { return size / kPerBlock + (size % kPerBlock != 0); }

  std::unique_ptr<Block[]> blocks_;
};

// The inputs transposed for the sweep: the samples of a column lie together, panel by panel, padded with zeros.
class SweepInputs {
 public:
  SweepInputs(std::size_t columns, std::size_t samples, SweepPrecision precision, SweepFunctions functions);
  static std::uint64_t scratch_bytes(std::size_t columns, std::size_t samples);

  // inputs: [samples, columns]. Fills columns [begin, end); returns the first of them with a NaN or infinite input, end when none has.
  std::size_t fill(std::span<const float> inputs, std::size_t begin, std::size_t end);

  std::size_t columns() const { return columns_; }
  std::size_t samples() const { return samples_; }
  SweepPanels panels() const { return {.precision = precision(), .inputs = values_.data(), .columns = columns_, .stride = stride_}; }
  std::size_t stride() const { return stride_; }
  SweepPrecision precision() const { return precision_; }
  // Of the running sum of one sweep.
  std::size_t sum_bytes() const { return sum_bytes(samples_, precision_); }
  static std::size_t stride_of(std::size_t samples) { return (samples + kSampleAlignment - 1) / kSampleAlignment * kSampleAlignment; }
  // Of quality curves.
  static SweepPrecision precision_of(std::size_t samples);
  static std::size_t sum_bytes(std::size_t samples, SweepPrecision precision);
  double squared_norm(std::size_t column) const { return squared_norms_[column]; }

 private:
  std::size_t columns_;
  std::size_t samples_;
  SweepPrecision precision_;
  std::size_t stride_;
  std::size_t panel_samples_;
  AlignedArray<float> values_;
  std::vector<double> squared_norms_;
};

// The two halves of a curve. What is little is added up: the dropped part while little is dropped, the kept part while little is kept, so
// that neither is ever the small difference of two large numbers.
enum class CurveSide { kDropped, kKept };

constexpr std::size_t last_dropped_count(std::size_t columns) { return columns / 2; }
constexpr CurveSide side_of(std::size_t count, std::size_t columns) {
  return count <= last_dropped_count(columns) ? CurveSide::kDropped : CurveSide::kKept;
}

// A way along the counts of dropped weights, one count a step. Its sweep sets the points of the counts after `first`.
struct SweepPath {
  CurveSide side = CurveSide::kDropped;
  std::size_t first = 0;
  std::size_t last = 0;
  // It begins with what the first path ends with, as the other side sees it.
  bool crosses = false;

  bool upwards() const { return last > first; }
  std::size_t steps() const { return steps_to(last); }
  std::size_t steps_to(std::size_t count) const { return upwards() ? count - first : first - count; }
};

// The ways from where the search starts, which is the same count in every row, up and down to the ends of its side, and from the far end
// through the other side. Between them they set all points but those of no weight, of all weights and of the start.
class SweepPaths {
 public:
  static constexpr std::size_t kPaths = 3;

  SweepPaths(std::size_t columns, std::size_t start);
  // One way only: from where all is dropped down, and on to the other side.
  static SweepPaths from_all_dropped(std::size_t columns);

  std::size_t start() const { return start_; }
  CurveSide start_side() const { return side_of(start_, columns_); }
  const SweepPath& operator[](std::size_t path) const { return paths_[path]; }
  // The path that sets the point of `count`; kPaths when none does.
  std::size_t path_to(std::size_t count) const;

 private:
  SweepPaths(std::size_t columns, std::size_t start, std::array<SweepPath, kPaths> paths)
      : columns_(columns), start_(start), paths_(paths) {}

  std::size_t columns_;
  std::size_t start_;
  std::array<SweepPath, kPaths> paths_;
};

// How far a path of a row is swept. a, b: inner product of the sum so far with the dense output and its squared norm, in units of the dense
// squared norm (point_unit).
struct SweepProgress {
  std::size_t steps = 0;
  double a = 0;
  double b = 0;
};

// Where a path begins whose first sum has these inner products.
inline SweepProgress progress_at(const SumProducts& products) {
  const double inverse_unit = 1 / point_unit(products.dense_squared_norm);
  return {.steps = 0, .a = products.with_dense * inverse_unit, .b = products.squared_norm * inverse_unit};
}

// The point of a side's sum, whose inner products are those of SweepProgress. What is dropped and what is kept add up to the dense output,
// so their parts orthogonal to it have the same norm.
inline CurvePoint point_at(CurveSide side, double a, double b, double dense_squared_norm) {
  const auto residual = static_cast<float>(std::max(0.0, b - a * a));
  if (side == CurveSide::kKept) return {.aligned = static_cast<float>(a), .residual = residual};
  return {.aligned = static_cast<float>(dense_squared_norm == 0 ? 0.0 : 1 - a), .residual = residual};
}

// Squared norm of the dense less the pruned output, which is what is dropped, from the same inner products and in the same units.
inline float error_at(CurveSide side, double a, double b, double dense_squared_norm) {
  const double error = side == CurveSide::kDropped ? b : (dense_squared_norm > 0 ? 1 : 0) - 2 * a + b;
  return static_cast<float>(std::max(0.0, error));
}

// Sweeps of several rows that are done together, panel by panel: what one reads of the inputs is in the cache for the next. One per thread.
class SweepBatch {
 public:
  SweepBatch(const SweepInputs& inputs, SweepFunctions functions);
  static std::uint64_t scratch_bytes(std::size_t columns, std::size_t samples, SweepPrecision precision);

  // Whether a sweep of that many steps can be added; one always can to an empty batch.
  bool has_room(std::size_t steps) const { return tasks_.size() < kRows && used_ + steps <= columns_.size(); }
  bool empty() const { return tasks_.empty(); }
  // Where the columns of the sweep that is added next are to be put.
  std::span<std::uint32_t> next_columns(std::size_t steps) { return std::span(columns_).subspan(used_, steps); }
  // Adds up the next columns of a row. weights: [columns]; dense: [inputs.stride()], the row's dense output as SweepTask takes it; both
  // must outlive run. The sum begins as zero.
  void add_up(std::size_t steps, std::span<const float> weights, const float* dense);
  // Sweeps the next columns of a row, with alignments, on from `sum`, taking weights away where `sign` is -1.
  void add_sweep(std::size_t steps, std::span<const float> weights, float sign, const float* dense, void* sum);
  // Adds the next columns of a row to `sum`, [inputs.stride()] in float64, with products rounded as SweepTask has it.
  void add_exactly(std::size_t steps, std::span<const float> weights, float sign, double rounder, double* sum);

  void run();
  // After run, by the order in which the sweeps were added.
  const SweepTask& operator[](std::size_t index) const { return tasks_[index]; }
  SumProducts products(std::size_t index) const { return products(tasks_[index].sum, tasks_[index].dense); }
  // Of any sum, as SweepTask has it.
  SumProducts products(const void* sum, const float* dense) const;
  void clear();

 private:
  // Rows swept together at most.
  static constexpr std::size_t kRows = 32;
  // Steps swept together, but for a single row with more.
  static constexpr std::size_t kSteps = 16384;
  static std::size_t capacity(std::size_t columns) { return std::max(columns, kSteps); }
  SweepTask& add(std::size_t steps, std::span<const float> weights, float sign, void* sum);

  const SweepInputs& inputs_;
  SweepFunctions functions_;
  std::vector<SweepTask> tasks_;
  std::size_t used_ = 0;
  std::vector<std::uint32_t> columns_;
  std::vector<float> weights_;
  std::vector<Alignment> alignments_;
  // [kRows, sum_bytes]
  AlignedArray<std::byte> sums_;
};

// Curves of all rows of a projection.
class QualityCurves {
 public:
  QualityCurves(std::size_t rows, const SweepInputs& inputs, const SweepPaths& paths, bool keeps_errors);
  static std::uint64_t scratch_bytes(std::size_t rows, std::size_t columns, std::size_t samples, bool keeps_errors);

  // sum: of the start's side at the start, with its inner products. Sets the points of the start and of both ends.
  void start_row(std::size_t row, const void* sum, const SumProducts& products);
  const SweepProgress& progress(std::size_t row, std::size_t path) const { return progress_[row * SweepPaths::kPaths + path]; }
  // Adds to a batch the sweep that goes on along a path of the row; batch.next_columns holds the next columns of its order.
  void add_sweep(std::size_t row, std::size_t path, std::size_t steps, std::span<const float> weights, const float* dense,
                 SweepBatch& batch);
  // Takes in what that sweep found; a point is the same however its sweep was cut.
  void take_sweep(std::size_t row, std::size_t path, const SweepTask& swept);
  // With one way only: the lowest count up to where it begins that is swept.
  std::size_t swept_down_to(std::size_t row) const {
    for (std::size_t path = SweepPaths::kPaths; path-- > 0;) {
      if (progress(row, path).steps > 0) return paths_[path].first - progress(row, path).steps;
    }
    return paths_.start();
  }
  bool is_swept(std::size_t row, std::size_t count) const {
    return (count >= swept_[row].first && count <= swept_[row].last) || is_swept_elsewhere(row, count);
  }
  // `count` must be swept. peak_square: the largest square of the row's dense output. The squared error is 0 where none are kept.
  OutputSums at(std::size_t row, std::size_t count, double peak_square) const {
    const std::size_t place = row * (columns_ + 1) + count;
    const double dense_squared_norm = dense_squared_norms_[row];
    return {.products = products_at(points_[place], dense_squared_norm),
            .squared_error = errors_ ? point_unit(dense_squared_norm) * static_cast<double>(errors_[place]) : 0,
            .peak_square = peak_square};
  }
  // From the point, whether or not errors are kept.
  double squared_error(std::size_t row, std::size_t count) const {
    return squared_error_at(points_[row * (columns_ + 1) + count], dense_squared_norms_[row]);
  }

 private:
  // Counts around the start.
  struct Range {
    std::size_t first = 0;
    std::size_t last = 0;
  };

  bool is_swept_elsewhere(std::size_t row, std::size_t count) const;
  // What is dropped is the dense output without what is kept.
  void cross(std::size_t row, std::size_t path, const float* dense, const SweepBatch& batch);
  void set_point(std::size_t row, std::size_t count, CurveSide side, double a, double b) {
    const std::size_t place = row * (columns_ + 1) + count;
    points_[place] = point_at(side, a, b, dense_squared_norms_[row]);
    if (errors_) errors_[place] = error_at(side, a, b, dense_squared_norms_[row]);
  }
  void* sum(std::size_t row, std::size_t path) { return sums_.data() + (row * SweepPaths::kPaths + path) * sum_bytes_; }

  const SweepInputs& inputs_;
  const SweepPaths& paths_;
  std::size_t columns_;
  std::size_t sum_bytes_;
  // [rows, columns + 1]
  std::unique_ptr<CurvePoint[]> points_;
  // The same, or nothing.
  std::unique_ptr<float[]> errors_;
  std::vector<double> dense_squared_norms_;
  std::vector<Range> swept_;
  // [rows, paths]
  std::vector<SweepProgress> progress_;
  // [rows, paths, sum_bytes_]
  AlignedArray<std::byte> sums_;
};

}  // namespace secateur::allocation

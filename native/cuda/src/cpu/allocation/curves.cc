#include "curves.h"

#include <algorithm>
#include <cmath>

namespace secateur::allocation {
namespace {

// Up to here the sweep computes in float64. The rounding noise of float32 products averages out over samples; with few of them it would
// reach the row qualities.
constexpr std::size_t kFloat64Samples = 128;

}  // namespace

SweepInputs::SweepInputs(std::size_t columns, std::size_t samples, SweepPrecision precision, SweepFunctions functions)
    : columns_(columns),
      samples_(samples),
      precision_(precision),
      stride_(stride_of(samples)),
      panel_samples_(functions.panel_samples(precision)),
      values_(columns * stride_),
      squared_norms_(columns) {}

std::uint64_t SweepInputs::scratch_bytes(std::size_t columns, std::size_t samples) {
  return AlignedArray<float>::bytes(columns * stride_of(samples)) + columns * sizeof(double);
}

SweepPrecision SweepInputs::precision_of(std::size_t samples) {
  return samples > kFloat64Samples ? SweepPrecision::kFloat32 : SweepPrecision::kFloat64;
}

std::size_t SweepInputs::sum_bytes(std::size_t samples, SweepPrecision precision) {
  return stride_of(samples) * (precision == SweepPrecision::kFloat32 ? sizeof(float) : sizeof(double));
}

std::size_t SweepInputs::fill(std::span<const float> inputs, std::size_t begin, std::size_t end) {
  // A few cache lines side by side in both matrices.
  constexpr std::size_t kTile = 16;
  for (std::size_t first_sample = 0; first_sample < stride_; first_sample += panel_samples_) {
    const std::size_t width = std::min(panel_samples_, stride_ - first_sample);
    const std::size_t filled = std::min(width, samples_ - std::min(samples_, first_sample));
    float* const panel = values_.data() + first_sample * columns_;
    for (std::size_t first = begin; first < end; first += kTile) {
      const std::size_t last = std::min(first + kTile, end);
      for (std::size_t sample = 0; sample < filled; ++sample) {
        const float* const input = inputs.data() + (first_sample + sample) * columns_;
        for (std::size_t column = first; column < last; ++column) {
          const float value = input[column];
          panel[column * width + sample] = value;
          squared_norms_[column] += static_cast<double>(value) * static_cast<double>(value);
        }
      }
      for (std::size_t column = first; column < last; ++column) {
        std::fill(panel + column * width + filled, panel + (column + 1) * width, 0.0F);
      }
    }
  }
  // Squares of finite float32 values cannot overflow float64.
  for (std::size_t column = begin; column < end; ++column) {
    if (!std::isfinite(squared_norms_[column])) return column;
  }
  return end;
}

SweepPaths::SweepPaths(std::size_t columns, std::size_t start) : columns_(columns), start_(start) {
  const std::size_t half = last_dropped_count(columns);
  if (start_side() == CurveSide::kDropped) {
    paths_ = {{{CurveSide::kDropped, start, half},
               {CurveSide::kDropped, start, std::min<std::size_t>(start, 1)},
               {CurveSide::kKept, columns, half + 1}}};
  } else {
    paths_ = {
        {{CurveSide::kKept, start, half + 1}, {CurveSide::kKept, start, std::max(start, columns - 1)}, {CurveSide::kDropped, 0, half}}};
  }
}

SweepPaths SweepPaths::from_all_dropped(std::size_t columns) {
  const std::size_t middle = last_dropped_count(columns) + 1;
  return {columns,
          columns,
          {{{CurveSide::kKept, columns, middle}, {CurveSide::kKept, columns, columns}, {CurveSide::kDropped, middle, 1, true}}}};
}

std::size_t SweepPaths::path_to(std::size_t count) const {
  const auto leads_to = [count](const SweepPath& path) {
    return path.upwards() ? path.first < count && count <= path.last : path.last <= count && count < path.first;
  };
  return static_cast<std::size_t>(std::ranges::find_if(paths_, leads_to) - paths_.begin());
}

SweepBatch::SweepBatch(const SweepInputs& inputs, SweepFunctions functions)
    : inputs_(inputs),
      functions_(functions),
      columns_(capacity(inputs.columns())),
      weights_(columns_.size()),
      alignments_(columns_.size()),
      sums_(kRows * inputs.sum_bytes()) {
  tasks_.reserve(kRows);
}

std::uint64_t SweepBatch::scratch_bytes(std::size_t columns, std::size_t samples, SweepPrecision precision) {
  return kRows * sizeof(SweepTask) + capacity(columns) * (sizeof(std::uint32_t) + sizeof(float) + sizeof(Alignment)) +
         AlignedArray<std::byte>::bytes(kRows * SweepInputs::sum_bytes(samples, precision));
}

void SweepBatch::add_up(std::size_t steps, std::span<const float> weights, const float* dense) {
  std::byte* const sum = sums_.data() + tasks_.size() * inputs_.sum_bytes();
  std::fill_n(sum, inputs_.sum_bytes(), std::byte{0});
  add(steps, weights, 1, sum).dense = dense;
}

void SweepBatch::add_sweep(std::size_t steps, std::span<const float> weights, float sign, const float* dense, void* sum) {
  Alignment* const alignments = alignments_.data() + used_;
  SweepTask& task = add(steps, weights, sign, sum);
  task.dense = dense;
  task.alignments = alignments;
}

void SweepBatch::add_exactly(std::size_t steps, std::span<const float> weights, float sign, double rounder, double* sum) {
  add(steps, weights, sign, sum).rounder = rounder;
}

SweepTask& SweepBatch::add(std::size_t steps, std::span<const float> weights, float sign, void* sum) {
  const std::uint32_t* const columns = columns_.data() + used_;
  float* const swept_weights = weights_.data() + used_;
  for (std::size_t j = 0; j < steps; ++j) swept_weights[j] = sign * weights[columns[j]];
  used_ += steps;
  return tasks_.emplace_back(SweepTask{.columns = columns, .weights = swept_weights, .count = steps, .sum = sum});
}

void SweepBatch::run() { functions_.sweep(inputs_.panels(), tasks_.data(), tasks_.size()); }

SumProducts SweepBatch::products(const void* sum, const float* dense) const {
  return functions_.products(inputs_.precision(), sum, dense, inputs_.stride());
}

void SweepBatch::clear() {
  tasks_.clear();
  used_ = 0;
}

QualityCurves::QualityCurves(std::size_t rows, const SweepInputs& inputs, const SweepPaths& paths, bool keeps_errors)
    : inputs_(inputs),
      paths_(paths),
      columns_(inputs.columns()),
      sum_bytes_(inputs.sum_bytes()),
      points_(std::make_unique_for_overwrite<CurvePoint[]>(rows * (columns_ + 1))),
      errors_(keeps_errors ? std::make_unique_for_overwrite<float[]>(rows * (columns_ + 1)) : nullptr),
      dense_squared_norms_(rows),
      swept_(rows),
      progress_(rows * SweepPaths::kPaths),
      sums_(rows * SweepPaths::kPaths * sum_bytes_) {}

std::uint64_t QualityCurves::scratch_bytes(std::size_t rows, std::size_t columns, std::size_t samples, bool keeps_errors) {
  const std::uint64_t point_bytes = sizeof(CurvePoint) + (keeps_errors ? sizeof(float) : 0);
  return rows * ((columns + 1) * point_bytes + sizeof(double) + sizeof(Range) + SweepPaths::kPaths * sizeof(SweepProgress)) +
         AlignedArray<std::byte>::bytes(rows * SweepPaths::kPaths * SweepInputs::sum_bytes(samples, SweepInputs::precision_of(samples)));
}

void QualityCurves::start_row(std::size_t row, const void* sum, const SumProducts& products) {
  const double dense_squared_norm = products.dense_squared_norm;
  dense_squared_norms_[row] = dense_squared_norm;
  swept_[row] = {.first = paths_.start(), .last = paths_.start()};
  const SweepProgress start = progress_at(products);
  set_point(row, paths_.start(), paths_.start_side(), start.a, start.b);
  // Nothing is dropped, nothing is kept.
  set_point(row, 0, CurveSide::kDropped, 0, 0);
  set_point(row, columns_, CurveSide::kKept, 0, 0);
  for (std::size_t path = 0; path < SweepPaths::kPaths; ++path) {
    std::byte* const path_sum = static_cast<std::byte*>(this->sum(row, path));
    if (paths_[path].side == paths_.start_side()) {
      progress_[row * SweepPaths::kPaths + path] = start;
      std::copy_n(static_cast<const std::byte*>(sum), sum_bytes_, path_sum);
    } else {
      std::fill_n(path_sum, sum_bytes_, std::byte{0});
    }
  }
}

void QualityCurves::add_sweep(std::size_t row, std::size_t path, std::size_t steps, std::span<const float> weights, const float* dense,
                              SweepBatch& batch) {
  if (paths_[path].crosses && progress(row, path).steps == 0) cross(row, path, dense, batch);
  const bool adds = paths_[path].upwards() == (paths_[path].side == CurveSide::kDropped);
  batch.add_sweep(steps, weights, adds ? 1.0F : -1.0F, dense, sum(row, path));
}

void QualityCurves::cross(std::size_t row, std::size_t path, const float* dense, const SweepBatch& batch) {
  const auto subtract = [&]<class Real>(const Real* kept, Real* dropped) {
    for (std::size_t sample = 0; sample < inputs_.stride(); ++sample) dropped[sample] = static_cast<Real>(dense[sample]) - kept[sample];
  };
  if (inputs_.precision() == SweepPrecision::kFloat32) {
    subtract(static_cast<const float*>(sum(row, 0)), static_cast<float*>(sum(row, path)));
  } else {
    subtract(static_cast<const double*>(sum(row, 0)), static_cast<double*>(sum(row, path)));
  }
  progress_[row * SweepPaths::kPaths + path] = progress_at(batch.products(sum(row, path), dense));
}

void QualityCurves::take_sweep(std::size_t row, std::size_t path_index, const SweepTask& swept) {
  const SweepPath& path = paths_[path_index];
  SweepProgress& progress = progress_[row * SweepPaths::kPaths + path_index];
  const double inverse_unit = 1 / point_unit(dense_squared_norms_[row]);
  double a = progress.a;
  double b = progress.b;
  std::size_t count = path.upwards() ? path.first + progress.steps : path.first - progress.steps;
  for (std::size_t j = 0; j < swept.count; ++j) {
    const double weight = static_cast<double>(swept.weights[j]);
    a += weight * swept.alignments[j].with_dense * inverse_unit;
    b += weight * (2 * swept.alignments[j].with_sum + weight * inputs_.squared_norm(swept.columns[j])) * inverse_unit;
    count += path.upwards() ? 1 : std::size_t{0} - 1;
    set_point(row, count, path.side, a, b);
  }
  progress = {.steps = progress.steps + swept.count, .a = a, .b = b};
  if (path.side != paths_.start_side()) return;
  Range& range = swept_[row];
  if (path.upwards()) {
    range.last = paths_.start() + progress.steps;
  } else {
    range.first = paths_.start() - progress.steps;
  }
}

bool QualityCurves::is_swept_elsewhere(std::size_t row, std::size_t count) const {
  const std::size_t path = paths_.path_to(count);
  return path == SweepPaths::kPaths || paths_[path].steps_to(count) <= progress(row, path).steps;
}

}  // namespace secateur::allocation

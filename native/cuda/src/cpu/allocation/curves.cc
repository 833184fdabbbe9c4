#include "curves.h"

#include <algorithm>
#include <cmath>

namespace secateur::allocation {
namespace {

// Up to here the sweep computes in float64. The rounding noise of float32 products averages out over samples; with few of them it would
// reach the row qualities.
constexpr std::size_t kFloat64Samples = 128;

}  // namespace

SweepInputs::SweepInputs(std::size_t columns, std::size_t samples, SweepFunctions functions)
    : columns_(columns),
      samples_(samples),
      stride_(stride_of(samples)),
      panel_samples_(functions.panel_samples(precision())),
      values_(columns * stride_),
      squared_norms_(columns) {}

std::uint64_t SweepInputs::scratch_bytes(std::size_t columns, std::size_t samples) {
  return AlignedArray<float>::bytes(columns * stride_of(samples)) + columns * sizeof(double);
}

SweepPrecision SweepInputs::precision_of(std::size_t samples) {
  return samples > kFloat64Samples ? SweepPrecision::kFloat32 : SweepPrecision::kFloat64;
}

std::size_t SweepInputs::sum_bytes(std::size_t samples) {
  return stride_of(samples) * (precision_of(samples) == SweepPrecision::kFloat32 ? sizeof(float) : sizeof(double));
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

std::uint64_t SweepBatch::scratch_bytes(std::size_t columns, std::size_t samples) {
  return kRows * sizeof(SweepTask) + capacity(columns) * (sizeof(std::uint32_t) + sizeof(float) + sizeof(Alignment)) +
         AlignedArray<std::byte>::bytes(kRows * SweepInputs::sum_bytes(samples));
}

void SweepBatch::add_up(std::size_t steps, std::span<const float> weights, const float* dense) {
  std::byte* const sum = sums_.data() + tasks_.size() * inputs_.sum_bytes();
  std::fill_n(sum, inputs_.sum_bytes(), std::byte{0});
  add(steps, weights, 1, dense, sum, nullptr);
}

void SweepBatch::add_sweep(std::size_t steps, std::span<const float> weights, float sign, const float* dense, void* sum) {
  add(steps, weights, sign, dense, sum, alignments_.data() + used_);
}

void SweepBatch::add(std::size_t steps, std::span<const float> weights, float sign, const float* dense, void* sum, Alignment* alignments) {
  const std::uint32_t* const columns = columns_.data() + used_;
  float* const swept_weights = weights_.data() + used_;
  for (std::size_t j = 0; j < steps; ++j) swept_weights[j] = sign * weights[columns[j]];
  tasks_.push_back({.dense = dense, .columns = columns, .weights = swept_weights, .count = steps, .sum = sum, .alignments = alignments});
  used_ += steps;
}

void SweepBatch::run() { functions_.sweep(inputs_.panels(), tasks_.data(), tasks_.size()); }

SumProducts SweepBatch::products(const void* sum, const float* dense) const {
  return functions_.products(inputs_.precision(), sum, dense, inputs_.stride());
}

void SweepBatch::clear() {
  tasks_.clear();
  used_ = 0;
}

QualityCurves::QualityCurves(std::size_t rows, const SweepInputs& inputs, const SweepPaths& paths)
    : inputs_(inputs),
      paths_(paths),
      columns_(inputs.columns()),
      sum_bytes_(inputs.sum_bytes()),
      points_(std::make_unique_for_overwrite<CurvePoint[]>(rows * (columns_ + 1))),
      dense_squared_norms_(rows),
      swept_(rows),
      progress_(rows * SweepPaths::kPaths),
      sums_(rows * SweepPaths::kPaths * sum_bytes_) {}

std::uint64_t QualityCurves::scratch_bytes(std::size_t rows, std::size_t columns, std::size_t samples) {
  return rows * ((columns + 1) * sizeof(CurvePoint) + sizeof(double) + sizeof(Range) + SweepPaths::kPaths * sizeof(SweepProgress)) +
         AlignedArray<std::byte>::bytes(rows * SweepPaths::kPaths * SweepInputs::sum_bytes(samples));
}

void QualityCurves::start_row(std::size_t row, const void* sum, const SumProducts& products) {
  const double dense_squared_norm = products.dense_squared_norm;
  dense_squared_norms_[row] = dense_squared_norm;
  swept_[row] = {.first = paths_.start(), .last = paths_.start()};
  const SweepProgress start = progress_at(products);
  points(row)[paths_.start()] = point_at(paths_.start_side(), start.a, start.b, dense_squared_norm);
  points(row).front() = {.aligned = dense_squared_norm > 0 ? 1.0F : 0.0F, .residual = 0};
  points(row).back() = {.aligned = 0, .residual = 0};
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
  const double dense_squared_norm = dense_squared_norms_[row];
  const double inverse_unit = 1 / point_unit(dense_squared_norm);
  double a = progress.a;
  double b = progress.b;
  const std::ptrdiff_t step = path.upwards() ? 1 : -1;
  CurvePoint* point = &points(row)[path.first] + step * static_cast<std::ptrdiff_t>(progress.steps);
  for (std::size_t j = 0; j < swept.count; ++j) {
    const double weight = static_cast<double>(swept.weights[j]);
    a += weight * swept.alignments[j].with_dense * inverse_unit;
    b += weight * (2 * swept.alignments[j].with_sum + weight * inputs_.squared_norm(swept.columns[j])) * inverse_unit;
    point += step;
    *point = point_at(path.side, a, b, dense_squared_norm);
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

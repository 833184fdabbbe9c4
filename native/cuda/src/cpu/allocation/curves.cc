#include "curves.h"

#include <algorithm>
#include <cmath>

namespace secateur::allocation {
namespace {

// Up to here the sweep computes in float64. The rounding noise of float32 products averages out over samples; with few of them it would
// reach the row qualities.
constexpr std::size_t kFloat64Samples = 128;

std::size_t padded(std::size_t samples) { return (samples + kSampleAlignment - 1) / kSampleAlignment * kSampleAlignment; }

}  // namespace

SweepInputs::SweepInputs(std::size_t columns, std::size_t samples)
    : columns_(columns), samples_(samples), stride_(padded(samples)), values_(columns * stride_), squared_norms_(columns) {}

std::uint64_t SweepInputs::scratch_bytes(std::size_t columns, std::size_t samples) {
  return AlignedArray<float>::bytes(columns * padded(samples)) + columns * sizeof(double);
}

SweepPrecision SweepInputs::precision_of(std::size_t samples) {
  return samples > kFloat64Samples ? SweepPrecision::kFloat32 : SweepPrecision::kFloat64;
}

std::size_t SweepInputs::sum_bytes(std::size_t samples) {
  return padded(samples) * (precision_of(samples) == SweepPrecision::kFloat32 ? sizeof(float) : sizeof(double));
}

std::size_t SweepInputs::fill(std::span<const float> inputs, std::size_t begin, std::size_t end) {
  float* const values = values_.data();
  for (std::size_t sample = 0; sample < samples_; ++sample) {
    const float* const input = inputs.data() + sample * columns_;
    for (std::size_t column = begin; column < end; ++column) {
      const float value = input[column];
      values[column * stride_ + sample] = value;
      squared_norms_[column] += static_cast<double>(value) * static_cast<double>(value);
    }
  }
  // Squares of finite float32 values cannot overflow float64.
  for (std::size_t column = begin; column < end; ++column) {
    if (!std::isfinite(squared_norms_[column])) return column;
  }
  return end;
}

CurveBuilder::CurveBuilder(const SweepInputs& inputs, SweepFunction sweep_function)
    : inputs_(inputs),
      sweep_(sweep_function),
      dense_(inputs.stride()),
      swept_weights_(all_steps(CurveSide::kDropped, inputs.columns())),
      alignments_(all_steps(CurveSide::kDropped, inputs.columns())) {}

std::uint64_t CurveBuilder::scratch_bytes(std::size_t columns, std::size_t samples) {
  return AlignedArray<float>::bytes(padded(samples)) + all_steps(CurveSide::kDropped, columns) * (sizeof(float) + sizeof(Alignment));
}

void CurveBuilder::set_row(std::span<const float> weights, std::span<const float> dense, double dense_squared_norm) {
  weights_ = weights;
  dense_squared_norm_ = dense_squared_norm;
  std::ranges::copy(dense, dense_.data());
}

void CurveBuilder::sweep(CurveSide side, std::span<const std::uint32_t> order, SweepProgress& progress, void* sum,
                         std::span<CurvePoint> points) {
  for (std::size_t j = 0; j < order.size(); ++j) swept_weights_[j] = weights_[order[j]];
  sweep_({.precision = inputs_.precision(),
          .inputs = inputs_.values(),
          .stride = inputs_.stride(),
          .dense = dense_.data(),
          .columns = order.data(),
          .weights = swept_weights_.data(),
          .count = order.size(),
          .sum = sum,
          .alignments = alignments_.data()});

  const double inverse_unit = 1 / point_unit(dense_squared_norm_);
  const bool kept = side == CurveSide::kKept;
  double a = progress.a;
  double b = progress.b;
  CurvePoint* point = kept ? &points[inputs_.columns() - progress.steps] : &points[progress.steps];
  for (std::size_t j = 0; j < order.size(); ++j) {
    const double weight = static_cast<double>(swept_weights_[j]);
    a += weight * alignments_[j].with_dense * inverse_unit;
    b += weight * (2 * alignments_[j].with_sum + weight * inputs_.squared_norm(order[j])) * inverse_unit;
    // What is dropped and what is kept add up to the dense output, so their parts orthogonal to it have the same norm.
    const auto residual = static_cast<float>(std::max(0.0, b - a * a));
    if (kept) {
      *--point = {.aligned = static_cast<float>(a), .residual = residual};
    } else {
      *++point = {.aligned = static_cast<float>(dense_squared_norm_ == 0 ? 0.0 : 1 - a), .residual = residual};
    }
  }
  progress = {.steps = progress.steps + order.size(), .a = a, .b = b};
}

QualityCurves::QualityCurves(std::size_t rows, const SweepInputs& inputs)
    : columns_(inputs.columns()),
      sum_bytes_(inputs.sum_bytes()),
      points_(std::make_unique_for_overwrite<CurvePoint[]>(rows * (columns_ + 1))),
      dense_squared_norms_(rows),
      progress_(2 * rows),
      sums_(2 * rows * sum_bytes_) {}

std::uint64_t QualityCurves::scratch_bytes(std::size_t rows, std::size_t columns, std::size_t samples) {
  return rows * ((columns + 1) * sizeof(CurvePoint) + sizeof(double) + 2 * sizeof(SweepProgress)) +
         AlignedArray<std::byte>::bytes(2 * rows * SweepInputs::sum_bytes(samples));
}

void QualityCurves::start_row(std::size_t row, double dense_squared_norm) {
  dense_squared_norms_[row] = dense_squared_norm;
  points(row).front() = {.aligned = dense_squared_norm > 0 ? 1.0F : 0.0F, .residual = 0};
  points(row).back() = {.aligned = 0, .residual = 0};
}

void QualityCurves::restart_row(std::size_t row, double dense_squared_norm) {
  for (const CurveSide side : {CurveSide::kDropped, CurveSide::kKept}) {
    progress(row, side) = {};
    std::fill_n(static_cast<std::byte*>(sum(row, side)), sum_bytes_, std::byte{0});
  }
  start_row(row, dense_squared_norm);
}

}  // namespace secateur::allocation

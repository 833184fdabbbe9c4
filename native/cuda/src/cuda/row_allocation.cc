#include "cuda/row_allocation.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "cpu/allocation/checked_input.h"
#include "cpu/allocation/curves.h"
#include "cpu/allocation/search.h"
#include "cuda/kernels/elementwise.h"
#include "cuda/kernels/mask.h"
#include "cuda/kernels/matrix_product_f32.h"
#include "cuda/kernels/quality_curves.h"
#include "cuda/kernels/row_order.h"

namespace secateur::gpu {

namespace {

using allocation::CurveSide;
using allocation::QualityCurves;

// Of the scratch memory for orders and curves of some rows at a time.
constexpr std::size_t kScratchBytes = std::size_t{256} << 20;

static_assert(sizeof(CurvePoint) == sizeof(allocation::CurvePoint));

template <class T>
void upload(const std::vector<T>& from, T* to, const Stream& stream) {
  check(cudaMemcpyAsync(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice, stream.get()), "uploading an allocation's input");
}

// Throws NonFinite naming the first weight that is NaN or infinite.
void require_finite_weights(const AllocationInput& input, const float* weights, MemoryBudget& budget, const Stream& stream) {
  DeviceBuffer<unsigned> flag(budget, 1, "a flag");
  check(cudaMemsetAsync(flag.data(), 0, sizeof(unsigned), stream.get()), "clearing a flag");
  check(flag_non_finite(weights, input.rows * input.columns, flag.data(), stream.get()), "looking for NaN");
  PinnedBuffer<unsigned> found(1);
  check(cudaMemcpyAsync(found.data(), flag.data(), sizeof(unsigned), cudaMemcpyDeviceToHost, stream.get()), "reading a flag");
  stream.synchronize("Looking for weights that are not finite");
  if (*found.data() == 0) return;
  std::vector<float> values(input.rows * input.columns);
  check(cudaMemcpyAsync(values.data(), weights, values.size() * sizeof(float), cudaMemcpyDeviceToHost, stream.get()), "reading weights");
  stream.synchronize("Reading weights");
  const auto bad = std::ranges::find_if(values, [](float value) { return !std::isfinite(value); });
  const auto place = static_cast<std::size_t>(bad - values.begin());
  throw Error(ErrorCode::kNonFinite, "The weight in row " + std::to_string(place / input.columns) + ", column " +
                                         std::to_string(place % input.columns) + " is not finite.");
}

// [columns, samples], from [samples, columns].
std::vector<float> transpose_inputs(const AllocationInput& input) {
  std::vector<float> inputs(input.columns * input.samples);
  for (std::size_t sample = 0; sample < input.samples; ++sample) {
    for (std::size_t column = 0; column < input.columns; ++column) {
      const float value = input.last_inputs[sample * input.columns + column];
      if (!std::isfinite(value)) {
        throw Error(ErrorCode::kNonFinite, "Input column " + std::to_string(column) + " has a value that is not finite.");
      }
      inputs[column * input.samples + sample] = value;
    }
  }
  return inputs;
}

AllocatedRows spread_uniformly(const QualityCurves& curves, const AllocationInput& input, float target) {
  const std::size_t count = allocation::dropped_count(input.columns, target);
  allocation::OutputProducts layer;
  std::vector<double> row_qualities(input.rows);
  for (std::size_t row = 0; row < input.rows; ++row) {
    const allocation::OutputProducts products = curves.at(row, count);
    layer.add(products);
    row_qualities[row] = allocation::cosine(products);
  }
  AllocatedRows result;
  result.baseline_quality = result.best_quality = allocation::cosine(layer);
  result.variance_before = result.variance_after = allocation::variance(row_qualities);
  result.row_sparsities.assign(input.rows, target);
  result.steps.push_back({.learning_rate = 0, .step = 0, .quality = result.baseline_quality});
  return result;
}

AllocatedRows search(const QualityCurves& curves, float target, const AllocationOptions& options, CallContext& context) {
  allocation::SearchOutcome outcome = allocation::search_rows(
      curves, [](std::span<const std::size_t>) {}, target, options, context);
  AllocatedRows result;
  result.baseline_quality = outcome.baseline_quality;
  result.best_quality = outcome.best_quality;
  result.learning_rate = outcome.learning_rate;
  result.best_step = outcome.best_step;
  result.variance_before = outcome.variance_before;
  result.variance_after = outcome.variance_after;
  result.row_sparsities = std::move(outcome.row_sparsities);
  result.steps = std::move(outcome.steps);
  return result;
}

}  // namespace

AllocatedRows allocate_rows(const AllocationInput& input, const float* weights, const AllocationOptions& options, MemoryBudget& budget,
                            const Stream& stream, Timeline& timeline, CallContext& context) {
  allocation::require_valid(input, options);
  if (input.samples > kMaximumCurveSamples) {
    throw Error(ErrorCode::kInvalidArgument, "samples is " + std::to_string(input.samples) + "; the cuda backend takes at most " +
                                                 std::to_string(kMaximumCurveSamples) + ".");
  }
  const float target = allocation::target_of(input);
  const std::vector<float> scales = allocation::score_scales(input, options.score);
  const std::vector<float> inputs = transpose_inputs(input);
  require_finite_weights(input, weights, budget, stream);
  context.check();

  const std::size_t rows = input.rows;
  const std::size_t columns = input.columns;
  DeviceBuffer<float> device_scales(budget, scales.size(), "scores");
  DeviceBuffer<float> device_inputs(budget, inputs.size(), "inputs of the last tokens");
  DeviceBuffer<float> device_last(budget, inputs.size(), "inputs of the last tokens");
  DeviceBuffer<std::uint32_t> orders(budget, rows * columns, "the order of the weights");
  if (!scales.empty()) upload(scales, device_scales.data(), stream);
  upload(inputs, device_inputs.data(), stream);
  check(cudaMemcpyAsync(device_last.data(), input.last_inputs.data(), input.last_inputs.size() * sizeof(float), cudaMemcpyHostToDevice,
                        stream.get()),
        "uploading an allocation's input");

  const std::size_t bytes_per_row =
      columns * 3 * sizeof(std::uint32_t) + (columns + 1) * sizeof(CurvePoint) + input.samples * sizeof(float);
  const std::size_t step = std::clamp<std::size_t>(kScratchBytes / bytes_per_row, 1, rows);
  DeviceBuffer<std::uint32_t> keys(budget, step * columns, "scratch of an allocation");
  DeviceBuffer<std::uint32_t> other_keys(budget, step * columns, "scratch of an allocation");
  DeviceBuffer<std::uint32_t> other_orders(budget, step * columns, "scratch of an allocation");
  DeviceBuffer<float> outputs(budget, step * input.samples, "dense outputs");
  DeviceBuffer<CurvePoint> points(budget, step * (columns + 1), "quality curves");
  DeviceBuffer<double> norms(budget, step, "quality curves");
  PinnedBuffer<CurvePoint> points_on_host(step * (columns + 1));
  PinnedBuffer<double> norms_on_host(step);

  const allocation::SweepInputs shape(columns, input.samples);
  QualityCurves curves(rows, shape);
  for (std::size_t first = 0; first < rows; first += step) {
    context.check();
    const std::size_t count = std::min(step, rows - first);
    const float* const part = weights + first * columns;
    const auto values = static_cast<double>(count * columns);
    timeline.begin("sort", 0, 4 * 16 * values);
    check(order_rows({count, columns, part, scales.empty() ? nullptr : device_scales.data(), keys.data(), other_keys.data(),
                      other_orders.data(), orders.data() + first * columns},
                     stream.get()),
          "ordering rows");
    timeline.begin("gemm", 2 * values * static_cast<double>(input.samples), 4 * values);
    check(matrix_product_f32({count, input.samples, columns, part, device_last.data(), nullptr, outputs.data()}, stream.get()),
          "dense outputs");
    timeline.begin("curves", 6 * values * static_cast<double>(input.samples), 4 * values * static_cast<double>(input.samples));
    check(quality_curves({count, columns, input.samples, part, orders.data() + first * columns, device_inputs.data(), outputs.data(),
                          points.data(), norms.data()},
                         stream.get()),
          "quality curves");
    check(cudaMemcpyAsync(points_on_host.data(), points.data(), count * (columns + 1) * sizeof(CurvePoint), cudaMemcpyDeviceToHost,
                          stream.get()),
          "reading quality curves");
    check(cudaMemcpyAsync(norms_on_host.data(), norms.data(), count * sizeof(double), cudaMemcpyDeviceToHost, stream.get()),
          "reading quality curves");
    timeline.finish(context, "Sweeping quality curves");
    for (std::size_t row = 0; row < count; ++row) {
      const double norm = norms_on_host.data()[row];
      if (!std::isfinite(norm)) {
        throw Error(ErrorCode::kNonFinite, "The output of row " + std::to_string(first + row) + " is too large for float32.");
      }
      curves.start_row(first + row, norm);
      const CurvePoint* const from = points_on_host.data() + row * (columns + 1);
      std::transform(from, from + columns + 1, curves.points(first + row).begin(), [](CurvePoint point) {
        return allocation::CurvePoint{point.aligned, point.residual};
      });
    }
  }

  AllocatedRows result =
      options.allocation == Allocation::kTrim ? search(curves, target, options, context) : spread_uniformly(curves, input, target);
  result.dropped_per_row.resize(rows);
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t count = allocation::dropped_count(columns, result.row_sparsities[row]);
    result.dropped_per_row[row] = static_cast<std::int32_t>(count);
    result.dropped += count;
  }
  DeviceBuffer<std::int32_t> counts(budget, rows, "counts of dropped weights");
  result.mask.resize(rows * ((columns + 7) / 8));
  DeviceBuffer<std::uint8_t> mask(budget, result.mask.size(), "a mask");
  upload(result.dropped_per_row, counts.data(), stream);
  timeline.begin("mask", 0, 4 * static_cast<double>(rows * columns));
  check(pack_mask(orders.data(), counts.data(), rows, columns, mask.data(), stream.get()), "packing a mask");
  check(cudaMemcpyAsync(result.mask.data(), mask.data(), result.mask.size(), cudaMemcpyDeviceToHost, stream.get()), "reading a mask");
  timeline.finish(context, "Packing a mask");
  return result;
}

}  // namespace secateur::gpu

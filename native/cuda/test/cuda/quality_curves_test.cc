#include "cuda/kernels/quality_curves.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "allocation/reference.h"
#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {
namespace {

// Squared error of a row's output at every count of dropped weights: the squared norm of what is dropped, in float64.
std::vector<double> squared_errors(std::size_t samples, const float* weights, const std::vector<std::uint32_t>& order,
                                   const std::vector<float>& inputs) {
  std::vector<double> dropped(samples);
  std::vector<double> errors = {0};
  for (const std::uint32_t column : order) {
    double error = 0;
    for (std::size_t sample = 0; sample < samples; ++sample) {
      dropped[sample] += static_cast<double>(weights[column]) * static_cast<double>(inputs[column * samples + sample]);
      error += dropped[sample] * dropped[sample];
    }
    errors.push_back(error);
  }
  return errors;
}

void check_quality_curves(std::size_t rows, std::size_t columns, std::size_t samples) {
  CAPTURE(rows);
  CAPTURE(columns);
  CAPTURE(samples);
  std::vector<float> weights = random_values(rows * columns, 5);
  // A weight that makes next to no error, a dead row and equal weights.
  weights[columns - 1] *= 1e-4F;
  if (rows > 2) std::fill_n(weights.begin() + static_cast<std::ptrdiff_t>(columns), columns, 0.0F);
  if (columns > 2) weights[1] = weights[0];
  const std::vector<float> inputs = random_values(columns * samples, 7);
  const std::vector<float> mean_squares(columns, 1.0F);
  std::vector<float> quality_inputs(samples * columns);
  for (std::size_t column = 0; column < columns; ++column) {
    for (std::size_t sample = 0; sample < samples; ++sample) quality_inputs[sample * columns + column] = inputs[column * samples + sample];
  }
  const AllocationInput input{.rows = rows,
                              .columns = columns,
                              .samples = samples,
                              .weights = weights,
                              .mean_squares = mean_squares,
                              .quality_inputs = quality_inputs,
                              .target_sparsity = 0.5};
  const auto row_orders = reference_orders(input, Score::kWanda);
  std::vector<std::uint32_t> orders;
  for (const auto& order : row_orders) orders.insert(orders.end(), order.begin(), order.end());
  std::vector<float> outputs(rows * samples);
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t sample = 0; sample < samples; ++sample) {
      double sum = 0;
      for (std::size_t column = 0; column < columns; ++column) {
        sum += static_cast<double>(weights[row * columns + column]) * static_cast<double>(inputs[column * samples + sample]);
      }
      outputs[row * samples + sample] = static_cast<float>(sum);
    }
  }
  DeviceArray<float> device_weights(weights);
  DeviceArray<std::uint32_t> device_orders(orders);
  DeviceArray<float> device_inputs(inputs);
  DeviceArray<float> device_outputs(outputs);
  DeviceArray<gpu::CurvePoint> device_points(rows * (columns + 1));
  DeviceArray<double> device_norms(rows);
  DeviceArray<gpu::CurveSums> sums(samples > gpu::kCurvePanelSamples ? rows * (columns + 1) : 0);
  REQUIRE(gpu::quality_curves({.rows = rows,
                               .columns = columns,
                               .samples = samples,
                               .weights = device_weights.data(),
                               .orders = device_orders.data(),
                               .inputs = device_inputs.data(),
                               .outputs = device_outputs.data(),
                               .sums = sums.data(),
                               .points = device_points.data(),
                               .dense_squared_norms = device_norms.data()},
                              nullptr) == cudaSuccess);
  const std::vector<gpu::CurvePoint> points = device_points.read();
  const std::vector<double> norms = device_norms.read();
  CHECK(device_points.is_guarded());
  CHECK(device_norms.is_guarded());
  CHECK(sums.is_guarded());

  std::vector<std::vector<double>> errors;
  for (std::size_t row = 0; row < rows; ++row) {
    errors.push_back(squared_errors(samples, &weights[row * columns], row_orders[row], inputs));
  }
  const Evaluate evaluate = reference_evaluation(input, row_orders);
  for (std::size_t count = 0; count <= columns; ++count) {
    const Evaluation expected = evaluate(std::vector<std::int32_t>(rows, static_cast<std::int32_t>(count)));
    for (std::size_t row = 0; row < rows; ++row) {
      const gpu::CurvePoint point = points[row * (columns + 1) + count];
      const double unit = norms[row] > 0 ? norms[row] : 1;
      const double aligned = static_cast<double>(point.aligned);
      const double pruned = unit * (aligned * aligned + static_cast<double>(point.residual));
      const double quality = unit * aligned / ((std::sqrt(norms[row]) + 1e-8) * (std::sqrt(pruned) + 1e-8));
      CHECK(std::abs(quality - expected.row_qualities[row]) < 1e-6);
      // In units of the dense squared norm, what a point lacks along the dense output is known to float32's rounding of 1, and so is the
      // dense output itself: so is the norm of the error, however small it is.
      const double error = errors[row][count] / unit;
      const double actual_error = allocation::squared_error_at(point, norms[row]) / unit;
      CHECK(std::abs(actual_error - error) <= 0x1p-22 * (error + std::sqrt(error)) + 0x1p-48);
    }
  }
}

}  // namespace

TEST_CASE("quality_curves") {
  in_all_schedules([] {
    check_quality_curves(1, 1, 1);
    check_quality_curves(5, 2, 31);
    check_quality_curves(4, 33, 33);
    check_quality_curves(3, 20, 128);
    check_quality_curves(3, 9, 300);
    check_quality_curves(1, 5, 1024);
    check_quality_curves(1, 1, 1025);
    check_quality_curves(3, 6, 1025);
    check_quality_curves(5, 5, 2500);
  });
  CHECK(gpu::quality_curves({.rows = 1,
                             .columns = 1,
                             .samples = gpu::kCurvePanelSamples + 1,
                             .weights = nullptr,
                             .orders = nullptr,
                             .inputs = nullptr,
                             .outputs = nullptr,
                             .sums = nullptr,
                             .points = nullptr,
                             .dense_squared_norms = nullptr},
                            nullptr) == cudaErrorInvalidValue);
}

}  // namespace secateur::test

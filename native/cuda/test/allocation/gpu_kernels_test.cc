// The CUDA kernels' own source, run on the host by gpu_on_host, against plain float64 code.
#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#include "cuda/column_sums.h"
#include "cuda/quality_curves.h"
#include "cuda_on_host.h"
#include "reference.h"

namespace secateur::test {
namespace {

constexpr double kGuard = -12345.5;

std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

void check_column_sums(std::size_t tokens, std::size_t columns) {
  CAPTURE(tokens);
  CAPTURE(columns);
  const std::vector<float> inputs = random_values(tokens * columns, 3);
  std::vector<double> sums(columns + 1, kGuard);
  REQUIRE(gpu::column_sums_of_squares(inputs.data(), tokens, columns, sums.data(), nullptr) == cudaSuccess);
  for (std::size_t column = 0; column < columns; ++column) {
    double expected = 0;
    for (std::size_t token = 0; token < tokens; ++token) {
      const double value = static_cast<double>(inputs[token * columns + column]);
      expected += value * value;
    }
    CHECK(sums[column] == doctest::Approx(expected).epsilon(1e-14));
  }
  CHECK(sums[columns] == kGuard);
}

void check_quality_curves(std::size_t rows, std::size_t columns, std::size_t samples) {
  CAPTURE(rows);
  CAPTURE(columns);
  CAPTURE(samples);
  std::vector<float> weights = random_values(rows * columns, 5);
  // A dead row and equal weights.
  if (rows > 2) std::fill_n(weights.begin() + static_cast<std::ptrdiff_t>(columns), columns, 0.0F);
  if (columns > 2) weights[1] = weights[0];
  const std::vector<float> inputs = random_values(columns * samples, 7);
  const std::vector<float> mean_squares(columns, 1.0F);
  std::vector<float> last_inputs(samples * columns);
  for (std::size_t column = 0; column < columns; ++column) {
    for (std::size_t sample = 0; sample < samples; ++sample) last_inputs[sample * columns + column] = inputs[column * samples + sample];
  }
  const AllocationInput input{.rows = rows,
                              .columns = columns,
                              .samples = samples,
                              .weights = weights,
                              .mean_squares = mean_squares,
                              .last_inputs = last_inputs,
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
  constexpr gpu::CurvePoint kGuardPoint{-7, -7};
  std::vector<gpu::CurvePoint> points(rows * (columns + 1) + 1, kGuardPoint);
  std::vector<double> norms(rows + 1, kGuard);
  REQUIRE(gpu::quality_curves({.rows = rows,
                               .columns = columns,
                               .samples = samples,
                               .weights = weights.data(),
                               .orders = orders.data(),
                               .inputs = inputs.data(),
                               .outputs = outputs.data(),
                               .points = points.data(),
                               .dense_squared_norms = norms.data()},
                              nullptr) == cudaSuccess);
  CHECK(points.back().aligned == kGuardPoint.aligned);
  CHECK(norms.back() == kGuard);

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
    }
  }
}

}  // namespace

TEST_CASE("column_sums_of_squares kernel on the host") {
  for (const auto order : {gpu_on_host::ThreadOrder::kUp, gpu_on_host::ThreadOrder::kDown}) {
    gpu_on_host::set_thread_order(order);
    for (const std::size_t tokens : {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{8}, std::size_t{129}}) {
      for (const std::size_t columns : {std::size_t{1}, std::size_t{31}, std::size_t{32}, std::size_t{33}, std::size_t{100}}) {
        check_column_sums(tokens, columns);
      }
    }
  }
}

TEST_CASE("quality_curves kernel on the host") {
  for (const auto order : {gpu_on_host::ThreadOrder::kUp, gpu_on_host::ThreadOrder::kDown}) {
    gpu_on_host::set_thread_order(order);
    check_quality_curves(1, 1, 1);
    check_quality_curves(5, 2, 31);
    check_quality_curves(4, 33, 33);
    check_quality_curves(3, 20, 128);
    check_quality_curves(3, 9, 300);
    check_quality_curves(1, 5, 1024);
  }
  CHECK(gpu::quality_curves({.rows = 1,
                             .columns = 1,
                             .samples = gpu::kMaximumCurveSamples + 1,
                             .weights = nullptr,
                             .orders = nullptr,
                             .inputs = nullptr,
                             .outputs = nullptr,
                             .points = nullptr,
                             .dense_squared_norms = nullptr},
                            nullptr) == cudaErrorInvalidValue);
}

}  // namespace secateur::test

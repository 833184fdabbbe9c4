#include "cuda/kernels/mask_rules.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {
namespace {

void check_pattern(std::size_t rows, std::size_t columns, std::size_t dropped, std::size_t group, bool scaled) {
  CAPTURE(columns);
  CAPTURE(dropped);
  CAPTURE(group);
  CAPTURE(scaled);
  std::vector<float> values = random_values(rows * columns, 3);
  std::vector<float> factors(columns);
  // Equal scores, of which the first go.
  for (std::size_t i = 0; i < values.size(); i += 3) values[i] = i % 2 == 0 ? 0.5F : -0.5F;
  for (std::size_t i = 0; i < columns; ++i) factors[i] = i % 5 == 0 ? 0.0F : static_cast<float>(1 + i % 3);
  const std::size_t row_bytes = (columns + 7) / 8;
  std::vector<std::uint8_t> expected(rows * row_bytes);
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t first = 0; first < columns; first += group) {
      std::vector<std::size_t> order(std::min(group, columns - first));
      std::iota(order.begin(), order.end(), first);
      std::ranges::stable_sort(
          order, {}, [&](std::size_t column) { return std::abs(values[row * columns + column]) * (scaled ? factors[column] : 1.0F); });
      for (std::size_t i = 0; i < order.size() * dropped / group; ++i) {
        expected[row * row_bytes + order[i] / 8] |= static_cast<std::uint8_t>(1U << order[i] % 8);
      }
    }
  }
  DeviceArray<float> weights(values);
  DeviceArray<float> scales(factors);
  DeviceArray<std::uint8_t> mask(rows * row_bytes);
  const gpu::PatternTask task{rows, columns, dropped, group, weights.data(), scaled ? scales.data() : nullptr, mask.data()};
  REQUIRE(gpu::mark_pattern(task, nullptr) == cudaSuccess);
  CHECK(mask.read() == expected);
  CHECK(mask.is_guarded());
}

void check_products(std::size_t rows, std::size_t samples) {
  CAPTURE(rows);
  CAPTURE(samples);
  const std::vector<float> dense_values = random_values(rows * samples, 4);
  const std::vector<float> pruned_values = random_values(rows * samples, 5);
  DeviceArray<float> dense(dense_values);
  DeviceArray<float> pruned(pruned_values);
  DeviceArray<allocation::OutputProducts> products(rows);
  REQUIRE(gpu::compare_outputs(dense.data(), pruned.data(), rows, samples, products.data(), nullptr) == cudaSuccess);
  const std::vector<allocation::OutputProducts> actual = products.read();
  for (std::size_t row = 0; row < rows; ++row) {
    allocation::OutputProducts expected;
    for (std::size_t i = row * samples; i < (row + 1) * samples; ++i) {
      const double y = static_cast<double>(dense_values[i]);
      const double p = static_cast<double>(pruned_values[i]);
      expected.add({y * p, y * y, p * p});
    }
    CHECK(std::abs(actual[row].inner_product - expected.inner_product) < 1e-13 * static_cast<double>(samples));
    CHECK(actual[row].dense_squared_norm == doctest::Approx(expected.dense_squared_norm).epsilon(1e-13));
    CHECK(actual[row].pruned_squared_norm == doctest::Approx(expected.pruned_squared_norm).epsilon(1e-13));
  }
  CHECK(products.is_guarded());
}

}  // namespace

TEST_CASE("mark_pattern drops the lowest of every group, of equal ones the first") {
  in_all_schedules([] {
    check_pattern(3, 64, 2, 4, true);
    check_pattern(2, 300, 2, 4, false);
    check_pattern(2, 33, 4, 8, true);
    check_pattern(2, 41, 3, 7, true);
    check_pattern(1, 20, 31, 32, false);
    check_pattern(1, 1, 1, 2, true);
  });
}

TEST_CASE("mark_pattern of groups of nothing is refused") {
  DeviceArray<std::uint8_t> mask(1);
  CHECK(gpu::mark_pattern({1, 1, 0, 0, nullptr, nullptr, mask.data()}, nullptr) == cudaErrorInvalidValue);
}

TEST_CASE("compare_outputs adds up each row as float64 does") {
  in_all_schedules([] {
    for (const auto& [rows, samples] : {std::pair<std::size_t, std::size_t>{1, 1}, {9, 31}, {8, 32}, {17, 100}})
      check_products(rows, samples);
  });
}

}  // namespace secateur::test

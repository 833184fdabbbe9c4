#include "cuda/kernels/score_ranks.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {
namespace {

struct Matrix {
  Matrix(std::size_t rows_of_it, std::size_t columns_of_it)
      : rows(rows_of_it), columns(columns_of_it), weights(random_values(rows * columns, 5)), scales(random_values(columns, 6)) {
    for (float& scale : scales) scale = std::abs(scale);
    // Many equal scores: dead inputs, and weights that are equal or differ by their sign.
    for (std::size_t i = 0; i < scales.size(); i += 3) scales[i] = 0;
    for (std::size_t i = 0; i + 1 < weights.size(); i += 5) weights[i] = i % 2 == 0 ? 0.25F : -0.25F;
    if (columns > 2) scales[2] = scales[1] = 1;
  }

  std::uint32_t key(std::size_t i) const { return __builtin_bit_cast(std::uint32_t, std::abs(weights[i]) * scales[i % columns]); }

  std::size_t rows;
  std::size_t columns;
  std::vector<float> weights;
  std::vector<float> scales;
};

struct OnDevice {
  explicit OnDevice(const Matrix& matrix) : weights(matrix.weights), scales(matrix.scales), rows(matrix.rows), columns(matrix.columns) {}
  gpu::ScoredWeights view() { return {rows, columns, weights.data(), scales.data()}; }

  DeviceArray<float> weights;
  DeviceArray<float> scales;
  std::size_t rows;
  std::size_t columns;
};

constexpr std::pair<std::size_t, std::size_t> kShapes[] = {{1, 1}, {3, 31}, {2, 256}, {5, 257}, {300, 3}};

void check_sums(const Matrix& matrix) {
  OnDevice device(matrix);
  DeviceArray<double> sums(matrix.rows);
  REQUIRE(gpu::sum_scores(device.view(), sums.data(), nullptr) == cudaSuccess);
  const std::vector<double> actual = sums.read();
  for (std::size_t row = 0; row < matrix.rows; ++row) {
    double expected = 0;
    for (std::size_t i = row * matrix.columns; i < (row + 1) * matrix.columns; ++i) {
      expected += static_cast<double>(std::abs(matrix.weights[i]) * matrix.scales[i % matrix.columns]);
    }
    CHECK(actual[row] == doctest::Approx(expected).epsilon(1e-14));
  }
  CHECK(sums.is_guarded());
}

void check_counts(const Matrix& matrix, std::uint32_t lowest, std::uint32_t highest) {
  OnDevice device(matrix);
  DeviceArray<std::uint32_t> counts(matrix.rows);
  REQUIRE(gpu::count_keys(device.view(), lowest, highest, counts.data(), nullptr) == cudaSuccess);
  const std::vector<std::uint32_t> actual = counts.read();
  for (std::size_t row = 0; row < matrix.rows; ++row) {
    std::uint32_t expected = 0;
    for (std::size_t i = row * matrix.columns; i < (row + 1) * matrix.columns; ++i) {
      if (matrix.key(i) >= lowest && matrix.key(i) <= highest) ++expected;
    }
    CHECK(actual[row] == expected);
  }
  CHECK(counts.is_guarded());
}

void check_digits(const Matrix& matrix, unsigned shift, std::uint32_t prefix) {
  OnDevice device(matrix);
  DeviceArray<std::uint32_t> counts(gpu::kDigitParts * gpu::kScoreDigits);
  REQUIRE(gpu::count_digits(device.view(), shift, prefix, counts.data(), nullptr) == cudaSuccess);
  const std::vector<std::uint32_t> of_parts = counts.read();
  std::vector<std::uint32_t> actual(gpu::kScoreDigits);
  for (std::size_t i = 0; i < of_parts.size(); ++i) actual[i % gpu::kScoreDigits] += of_parts[i];
  std::vector<std::uint32_t> expected(gpu::kScoreDigits);
  for (std::size_t i = 0; i < matrix.weights.size(); ++i) {
    const std::uint64_t key = matrix.key(i);
    if (key >> (shift + 8) == prefix >> shift >> 8) ++expected[key >> shift & 0xffU];
  }
  CHECK(actual == expected);
  CHECK(counts.is_guarded());
}

// Of the whole matrix the lowest scores, of equal ones those that come first.
void check_dropped(const Matrix& matrix, std::size_t count) {
  CAPTURE(count);
  std::vector<std::size_t> order(matrix.weights.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return matrix.key(i); });
  std::vector<float> expected = matrix.weights;
  for (std::size_t i = 0; i < count; ++i) expected[order[i]] = 0;
  const std::uint32_t key = matrix.key(order[count - 1]);
  std::vector<std::uint32_t> equal_of_rows(matrix.rows);
  for (std::size_t i = 0; i < count; ++i) {
    if (matrix.key(order[i]) == key) ++equal_of_rows[order[i] / matrix.columns];
  }
  OnDevice device(matrix);
  DeviceArray<std::uint32_t> equal(equal_of_rows);
  DeviceArray<float> rest(matrix.weights.size());
  REQUIRE(gpu::drop_lowest(device.view(), key, equal.data(), rest.data(), nullptr) == cudaSuccess);
  CHECK(rest.read() == expected);
  CHECK(rest.is_guarded());
}

}  // namespace

TEST_CASE("sum_scores adds up each row as float64 does") {
  in_all_schedules([] {
    for (const auto& [rows, columns] : kShapes) check_sums(Matrix(rows, columns));
  });
}

TEST_CASE("count_keys counts those between two, both among them") {
  in_all_schedules([] {
    for (const auto& [rows, columns] : kShapes) {
      const Matrix matrix(rows, columns);
      const std::uint32_t middle = matrix.key(matrix.weights.size() / 2);
      check_counts(matrix, 0, 0);
      check_counts(matrix, middle, middle);
      check_counts(matrix, middle + 1, 0x7f800000U);
    }
  });
}

TEST_CASE("count_digits counts the digits of the keys that begin as the prefix does") {
  in_all_schedules([] {
    const Matrix matrix(300, 9);
    const std::uint32_t key = matrix.key(1);
    check_digits(matrix, 24, 0);
    check_digits(matrix, 16, key & 0xff000000U);
    check_digits(matrix, 0, key & 0xffffff00U);
  });
}

TEST_CASE("drop_lowest keeps all but the lowest, and of equal ones the last") {
  in_all_schedules([] {
    for (const auto& [rows, columns] : kShapes) {
      const Matrix matrix(rows, columns);
      const std::size_t size = rows * columns;
      for (const std::size_t count : {std::size_t{1}, (size + 1) / 2, size}) check_dropped(matrix, count);
    }
  });
}

}  // namespace secateur::test

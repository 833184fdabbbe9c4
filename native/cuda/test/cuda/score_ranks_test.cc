#include "cuda/kernels/score_ranks.h"

#include <doctest/doctest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "device_array.h"
#include "schedules.h"
#include "scored_matrix.h"

namespace secateur::test {
namespace {

constexpr std::pair<std::size_t, std::size_t> kShapes[] = {{1, 1}, {3, 31}, {2, 256}, {5, 257}, {300, 3}};

void check_sums(const ScoredMatrix& matrix) {
  ScoredOnDevice device(matrix);
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

void check_counts(const ScoredMatrix& matrix, std::uint32_t lowest, std::uint32_t highest) {
  ScoredOnDevice device(matrix);
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

}  // namespace

TEST_CASE("sum_scores adds up each row as float64 does") {
  in_all_schedules([] {
    for (const auto& [rows, columns] : kShapes) check_sums(ScoredMatrix(rows, columns));
  });
}

TEST_CASE("count_keys counts those between two, both among them") {
  in_all_schedules([] {
    for (const auto& [rows, columns] : kShapes) {
      const ScoredMatrix matrix(rows, columns);
      const std::uint32_t middle = matrix.key(matrix.weights.size() / 2);
      check_counts(matrix, 0, 0);
      check_counts(matrix, middle, middle);
      check_counts(matrix, middle + 1, 0x7f800000U);
    }
  });
}

}  // namespace secateur::test

#include "cuda/kernels/lowest_scores.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "device_array.h"
#include "schedules.h"
#include "scored_matrix.h"

namespace secateur::test {
namespace {

using gpu::EqualScores;

constexpr std::pair<std::size_t, std::size_t> kShapes[] = {{1, 1}, {3, 31}, {2, 32}, {2, 256}, {5, 257}, {33, 3}};
// More rows than parts.
constexpr std::size_t kManyRows = 300;

struct Lowest {
  explicit Lowest(std::size_t rows) : digits(gpu::kDigitParts * gpu::kDigitValues), left(1), key(1), equal(rows) {}
  gpu::LowestScores view() { return {digits.data(), left.data(), key.data(), equal.data()}; }
  bool is_guarded() const { return digits.is_guarded() && left.is_guarded() && key.is_guarded() && equal.is_guarded(); }

  DeviceArray<std::uint32_t> digits;
  DeviceArray<std::uint64_t> left;
  DeviceArray<std::uint32_t> key;
  DeviceArray<std::uint32_t> equal;
};

// By a stable sort of the whole matrix.
std::vector<bool> expected_lowest(const ScoredMatrix& matrix, std::size_t count, EqualScores equal) {
  std::vector<std::size_t> order(matrix.weights.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return matrix.key(i); });
  if (equal == EqualScores::kAll) {
    while (count > 0 && count < order.size() && matrix.key(order[count]) == matrix.key(order[count - 1])) ++count;
  }
  std::vector<bool> lowest(order.size());
  for (std::size_t i = 0; i < count; ++i) lowest[order[i]] = true;
  return lowest;
}

void check_lowest(const ScoredMatrix& matrix, std::size_t count, EqualScores equal, bool scaled) {
  CAPTURE(matrix.rows);
  CAPTURE(matrix.columns);
  CAPTURE(count);
  CAPTURE(scaled);
  const std::vector<bool> expected = expected_lowest(matrix, count, equal);
  ScoredOnDevice device(matrix);
  gpu::ScoredWeights scored = device.view();
  if (!scaled) scored.scales = nullptr;
  Lowest lowest(matrix.rows);
  REQUIRE(gpu::find_lowest(scored, count, equal, lowest.view(), nullptr) == cudaSuccess);

  DeviceArray<float> rest(matrix.weights.size());
  REQUIRE(gpu::drop_lowest(scored, lowest.view(), rest.data(), nullptr) == cudaSuccess);
  const std::size_t row_bytes = (matrix.columns + 7) / 8;
  DeviceArray<std::uint8_t> mask(matrix.rows * row_bytes);
  REQUIRE(gpu::mark_lowest(scored, lowest.view(), mask.data(), nullptr) == cudaSuccess);
  std::vector<float> expected_rest = matrix.weights;
  std::vector<std::uint8_t> expected_mask(mask.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!expected[i]) continue;
    expected_rest[i] = 0;
    const std::size_t column = i % matrix.columns;
    expected_mask[i / matrix.columns * row_bytes + column / 8] |= static_cast<std::uint8_t>(1U << column % 8);
  }
  CHECK(rest.read() == expected_rest);
  CHECK(mask.read() == expected_mask);
  CHECK((rest.is_guarded() && mask.is_guarded() && lowest.is_guarded()));
}

void check_counts(const ScoredMatrix& matrix, EqualScores equal, bool scaled) {
  const std::size_t size = matrix.weights.size();
  // Threads meet in the same way whatever the count.
  if (cuda_on_host::kRaceCheck) return check_lowest(matrix, (size + 2) / 3, equal, scaled);
  for (const std::size_t count : {std::size_t{1}, size / 3, size / 2, size - 1, size}) {
    // All that are equal to the highest of none are none.
    if (count > 0 || equal == EqualScores::kFirst) check_lowest(matrix, count, equal, scaled);
  }
}

}  // namespace

TEST_CASE("the lowest scores of a matrix are found, and of equal ones the first") {
  in_all_schedules([] {
    for (const auto& [rows, columns] : kShapes) check_counts(ScoredMatrix(rows, columns), EqualScores::kFirst, true);
    check_lowest(ScoredMatrix(kManyRows, 3), kManyRows, EqualScores::kFirst, true);
    check_lowest(ScoredMatrix(3, 31), 0, EqualScores::kFirst, true);
  });
}

TEST_CASE("the lowest scores of a matrix are found with all that are equal to the highest of them") {
  in_all_schedules([] {
    for (const auto& [rows, columns] : {std::pair<std::size_t, std::size_t>{3, 31}, {33, 3}})
      check_counts(ScoredMatrix(rows, columns), EqualScores::kAll, true);
  });
}

TEST_CASE("without scales the lowest scores are the lowest magnitudes") {
  in_all_schedules([] {
    ScoredMatrix matrix(5, 257);
    std::ranges::fill(matrix.scales, 1.0F);
    check_counts(matrix, EqualScores::kFirst, false);
  });
}

TEST_CASE("scores that differ in their lowest bits alone are told apart") {
  in_all_schedules([] {
    ScoredMatrix matrix(2, 40);
    std::ranges::fill(matrix.scales, 1.0F);
    for (std::size_t i = 0; i < matrix.weights.size(); ++i) {
      matrix.weights[i] = __builtin_bit_cast(float, 0x3f800000U + static_cast<std::uint32_t>(i * 7 % 80));
    }
    check_counts(matrix, EqualScores::kFirst, true);
  });
}

TEST_CASE("a matrix without weights has no lowest scores") {
  CHECK(gpu::find_lowest({0, 3, nullptr, nullptr}, 0, EqualScores::kFirst, {}, nullptr) == cudaSuccess);
  CHECK(gpu::mark_lowest({3, 0, nullptr, nullptr}, {}, nullptr, nullptr) == cudaSuccess);
}

}  // namespace secateur::test

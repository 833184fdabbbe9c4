#include "cuda/kernels/sparsegpt.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "cuda/kernels/damp_gram_matrix.h"
#include "cuda/kernels/inverse_factor.h"
#include "device_array.h"
#include "random_values.h"
#include "repair/reference.h"
#include "schedules.h"

namespace secateur::test {
namespace {

void check_sparsegpt(std::size_t rows, std::size_t columns) {
  CAPTURE(rows);
  CAPTURE(columns);
  constexpr std::size_t kSamples = 6;
  const std::size_t tokens = columns / 2 + 5;
  std::vector<float> inputs = random_values(tokens * columns, 3);
  // Two dead inputs, and one that another depends on.
  for (std::size_t token = 0; token < tokens; ++token) {
    if (columns > 8) inputs[token * columns + 3] = inputs[token * columns + 7] = 0;
    if (columns > 130) inputs[token * columns + 130] += 3 * inputs[token * columns + 1];
  }
  const Matrix gram = gram_of(inputs, columns);
  const std::vector<float> weights = random_values(rows * columns, 4);
  std::vector<std::int32_t> counts(rows);
  for (std::size_t row = 0; row < rows; ++row) counts[row] = static_cast<std::int32_t>((row + 1) * columns * 7 / 10 / rows);
  counts.front() = rows > 1 ? 0 : counts.front();
  // Of the two dead weights, which are equal, only the first.
  if (rows > 3) counts[1] = 1;
  counts.back() = rows > 2 ? static_cast<std::int32_t>(columns) : counts.back();

  DeviceArray<double> device_gram(gram);
  DeviceArray<std::uint8_t> dead(columns);
  DeviceArray<unsigned> failed(std::vector<unsigned>{0});
  DeviceArray<std::int32_t> device_counts(counts);
  DeviceArray<float> device_weights(weights);
  DeviceArray<float> errors(rows * gpu::kSparseGptColumns);
  DeviceArray<std::uint8_t> mask(rows * ((columns + 7) / 8));
  REQUIRE(gpu::damp_gram_matrix(device_gram.data(), columns, kSamples / 2.0F, 0.01, dead.data(), nullptr) == cudaSuccess);
  REQUIRE(gpu::inverse_factor(device_gram.data(), columns, failed.data(), nullptr) == cudaSuccess);
  Matrix upper = device_gram.read();
  for (std::size_t i = 0; i < columns; ++i) {
    for (std::size_t j = 0; j < i; ++j) upper[i * columns + j] = std::nan("");
  }
  DeviceArray<double> factor(upper);
  REQUIRE(gpu::prune_with_sparsegpt({.rows = rows,
                                     .columns = columns,
                                     .factor = factor.data(),
                                     .dead = dead.data(),
                                     .counts = device_counts.data(),
                                     .weights = device_weights.data(),
                                     .errors = errors.data(),
                                     .mask = mask.data()},
                                    nullptr) == cudaSuccess);
  const std::vector<float> pruned = device_weights.read();
  CHECK(failed.read()[0] == 0);
  CHECK(device_gram.is_guarded());
  CHECK(dead.is_guarded());
  CHECK(device_weights.is_guarded());
  CHECK(errors.is_guarded());
  CHECK(mask.is_guarded());

  const PrunedMatrix expected = reference_sparsegpt(gram, kSamples, rows, columns, weights, counts);
  CHECK(mask.read() == expected.mask);
  double largest = 1;
  for (const double weight : expected.weights) largest = std::max(largest, std::abs(weight));
  bool close = true;
  for (std::size_t i = 0; i < pruned.size(); ++i) {
    // Not true of NaN.
    close = close && std::abs(static_cast<double>(pruned[i]) - expected.weights[i]) < 1e-5 * largest;
    if (expected.weights[i] == 0) CHECK(pruned[i] == 0);
  }
  CHECK(close);
}

// What rows would drop by themselves, told them from outside.
void check_chosen(std::size_t rows, std::size_t columns) {
  CAPTURE(columns);
  std::vector<double> factor(columns * columns);
  for (std::size_t i = 0; i < factor.size(); ++i) {
    const std::size_t row = i / columns;
    const std::size_t column = i % columns;
    factor[i] = row == column ? 1 + 0.01 * static_cast<double>(row % 7) : 0.1 / static_cast<double>(1 + column);
  }
  std::vector<std::uint8_t> dead_columns(columns);
  dead_columns[columns / 2] = 1;
  std::vector<std::int32_t> counts(rows);
  for (std::size_t row = 0; row < rows; ++row) counts[row] = static_cast<std::int32_t>(row * columns / rows);
  const std::vector<float> weights = random_values(rows * columns, 8);
  DeviceArray<double> device_factor(factor);
  DeviceArray<std::uint8_t> dead(dead_columns);
  DeviceArray<std::int32_t> device_counts(counts);
  DeviceArray<float> errors(rows * gpu::kSparseGptColumns);
  DeviceArray<float> own(weights);
  DeviceArray<float> told(weights);
  DeviceArray<std::uint8_t> own_mask(rows * ((columns + 7) / 8));
  DeviceArray<std::uint8_t> told_mask(own_mask.size());
  gpu::SparseGptTask task{rows,       columns,       device_factor.data(), dead.data(), device_counts.data(),
                          own.data(), errors.data(), own_mask.data()};
  REQUIRE(gpu::prune_with_sparsegpt(task, nullptr) == cudaSuccess);
  task.weights = told.data();
  task.mask = told_mask.data();
  for (std::size_t first = 0; first < columns; first += gpu::kSparseGptColumns) {
    const std::size_t width = std::min(gpu::kSparseGptColumns, columns - first);
    DeviceArray<float> scores(rows * width);
    REQUIRE(gpu::score_sparsegpt_block(task, first, scores.data(), nullptr) == cudaSuccess);
    const std::vector<float> of_block = scores.read();
    CHECK(scores.is_guarded());
    std::vector<std::uint8_t> chosen(rows * ((width + 7) / 8));
    for (std::size_t row = 0; row < rows; ++row) {
      const auto count = static_cast<std::size_t>(counts[row]);
      const std::size_t drop = (first + width) * count / columns - first * count / columns;
      std::vector<std::size_t> order(width);
      for (std::size_t i = 0; i < width; ++i) order[i] = i;
      std::ranges::stable_sort(order, {}, [&](std::size_t i) { return of_block[row * width + i]; });
      for (std::size_t i = 0; i < drop; ++i)
        chosen[row * ((width + 7) / 8) + order[i] / 8] |= static_cast<std::uint8_t>(1U << order[i] % 8);
    }
    DeviceArray<std::uint8_t> device_chosen(chosen);
    REQUIRE(gpu::prune_sparsegpt_block(task, first, device_chosen.data(), nullptr) == cudaSuccess);
    CHECK(device_chosen.is_guarded());
  }
  CHECK(told.read() == own.read());
  CHECK(told_mask.read() == own_mask.read());
}

}  // namespace

TEST_CASE("scores of SparseGPT, and blocks whose drops are chosen elsewhere") {
  in_all_schedules([] {
    check_chosen(3, 9);
    check_chosen(5, 150);
  });
  CHECK(gpu::score_sparsegpt_block({}, 0, nullptr, nullptr) == cudaSuccess);
}

TEST_CASE("damp_gram_matrix, inverse_factor and prune_with_sparsegpt") {
  in_all_schedules([] {
    check_sparsegpt(1, 1);
    check_sparsegpt(3, 9);
    check_sparsegpt(5, 127);
    check_sparsegpt(17, 128);
    check_sparsegpt(2, 129);
    check_sparsegpt(66, 200);
    check_sparsegpt(4, 321);
  });
  CHECK(gpu::prune_with_sparsegpt({}, nullptr) == cudaSuccess);
}

}  // namespace secateur::test

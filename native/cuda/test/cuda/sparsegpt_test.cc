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

}  // namespace

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

#include "cuda/kernels/sparsegpt.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "cuda/kernels/damp_gram_matrix.h"
#include "cuda/kernels/inverse_factor.h"
#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {
namespace {

using Matrix = std::vector<double>;

// Gauss-Jordan elimination, of a positive definite matrix.
Matrix inverse_of(Matrix matrix, std::size_t size) {
  Matrix inverse(size * size);
  for (std::size_t i = 0; i < size; ++i) inverse[i * size + i] = 1;
  for (std::size_t pivot = 0; pivot < size; ++pivot) {
    const double scale = 1 / matrix[pivot * size + pivot];
    for (std::size_t j = 0; j < size; ++j) {
      matrix[pivot * size + j] *= scale;
      inverse[pivot * size + j] *= scale;
    }
    for (std::size_t i = 0; i < size; ++i) {
      const double factor = matrix[i * size + pivot];
      if (i == pivot || factor == 0) continue;
      for (std::size_t j = 0; j < size; ++j) {
        matrix[i * size + j] -= factor * matrix[pivot * size + j];
        inverse[i * size + j] -= factor * inverse[pivot * size + j];
      }
    }
  }
  return inverse;
}

struct Expected {
  Matrix weights;
  std::vector<std::uint8_t> mask;
};

// Column by column as in the paper: after a column, the inverse Hessian of those to its right comes from eliminating it.
Expected reference_sparsegpt(const Matrix& gram, std::size_t samples, std::size_t rows, std::size_t columns,
                             const std::vector<float>& weights, const std::vector<std::int32_t>& counts) {
  Matrix hessian = gram;
  Expected expected{.weights = Matrix(weights.begin(), weights.end()), .mask = std::vector<std::uint8_t>(rows * ((columns + 7) / 8))};
  double trace = 0;
  for (double& value : hessian) value *= 2.0 / static_cast<double>(samples);
  for (std::size_t column = 0; column < columns; ++column) {
    double& diagonal = hessian[column * columns + column];
    if (diagonal == 0) {
      diagonal = 1;
      for (std::size_t row = 0; row < rows; ++row) expected.weights[row * columns + column] = 0;
    }
    trace += diagonal;
  }
  for (std::size_t column = 0; column < columns; ++column) {
    hessian[column * columns + column] += 0.01 * trace / static_cast<double>(columns);
  }

  Matrix inverse = inverse_of(hessian, columns);
  // The pivots of all columns are needed when a block begins, its rows when a column is dropped.
  std::vector<double> pivots(columns);
  Matrix pivot_rows(columns * columns);
  for (std::size_t column = 0; column < columns; ++column) {
    const double pivot = inverse[column * columns + column];
    pivots[column] = pivot;
    for (std::size_t j = column; j < columns; ++j) pivot_rows[column * columns + j] = inverse[column * columns + j];
    for (std::size_t i = column + 1; i < columns; ++i) {
      const double factor = inverse[i * columns + column] / pivot;
      for (std::size_t j = column + 1; j < columns; ++j) inverse[i * columns + j] -= factor * pivot_rows[column * columns + j];
    }
  }
  for (std::size_t row = 0; row < rows; ++row) {
    double* const own = &expected.weights[row * columns];
    for (std::size_t begin = 0; begin < columns; begin += 128) {
      const std::size_t end = std::min<std::size_t>(begin + 128, columns);
      const auto count = static_cast<std::size_t>(counts[row]);
      std::vector<std::size_t> order(end - begin);
      std::iota(order.begin(), order.end(), begin);
      const auto score = [&](std::size_t column) { return own[column] * own[column] / pivots[column]; };
      std::ranges::stable_sort(order, {}, score);
      order.resize(count * end / columns - count * begin / columns);
      std::ranges::sort(order);
      for (const std::size_t column : order) {
        const double error = own[column] / pivots[column];
        for (std::size_t j = column; j < columns; ++j) own[j] -= error * pivot_rows[column * columns + j];
        std::uint8_t& byte = expected.mask[row * ((columns + 7) / 8) + column / 8];
        byte = static_cast<std::uint8_t>(byte | (1U << (column % 8)));
      }
      for (const std::size_t column : order) own[column] = 0;
    }
  }
  return expected;
}

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
  Matrix gram(columns * columns);
  for (std::size_t i = 0; i < columns; ++i) {
    for (std::size_t j = 0; j < columns; ++j) {
      for (std::size_t token = 0; token < tokens; ++token) {
        gram[i * columns + j] += static_cast<double>(inputs[token * columns + i]) * static_cast<double>(inputs[token * columns + j]);
      }
    }
  }
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
  REQUIRE(gpu::damp_gram_matrix(device_gram.data(), columns, kSamples, dead.data(), nullptr) == cudaSuccess);
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

  const Expected expected = reference_sparsegpt(gram, kSamples, rows, columns, weights, counts);
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

// Kernels of repairs that work on every weight, or every row, by themselves.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "cuda/kernels/admm.h"
#include "cuda/kernels/conjugate_gradients.h"
#include "cuda/kernels/drift.h"
#include "cuda/kernels/gram_inverse.h"
#include "cuda/kernels/row_dots.h"
#include "device_array.h"
#include "random_values.h"
#include "repair/reference.h"
#include "schedules.h"

namespace secateur::test {
namespace {

std::vector<std::uint8_t> random_mask(std::size_t rows, std::size_t columns) {
  const std::vector<float> values = random_values(rows * columns, 21);
  std::vector<std::uint8_t> mask(rows * ((columns + 7) / 8));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t column = i % columns;
    if (values[i] > 0) mask[i / columns * ((columns + 7) / 8) + column / 8] |= static_cast<std::uint8_t>(1U << column % 8);
  }
  return mask;
}

bool is_dropped(const std::vector<std::uint8_t>& mask, std::size_t columns, std::size_t place) {
  const std::size_t column = place % columns;
  return (mask[place / columns * ((columns + 7) / 8) + column / 8] >> column % 8 & 1U) != 0;
}

void check_row_dots(std::size_t rows, std::size_t columns) {
  CAPTURE(columns);
  const std::vector<float> left = random_values(rows * columns, 1);
  const std::vector<float> right = random_values(rows * columns, 2);
  DeviceArray<float> device_left(left);
  DeviceArray<float> device_right(right);
  DeviceArray<double> dots(rows);
  REQUIRE(gpu::row_dots(device_left.data(), device_right.data(), rows, columns, dots.data(), nullptr) == cudaSuccess);
  const std::vector<double> actual = dots.read();
  for (std::size_t row = 0; row < rows; ++row) {
    double expected = 0;
    for (std::size_t i = row * columns; i < (row + 1) * columns; ++i)
      expected += static_cast<double>(left[i]) * static_cast<double>(right[i]);
    CHECK(actual[row] == doctest::Approx(expected).epsilon(1e-12));
  }
  CHECK(dots.is_guarded());
}

// The products with the Gram matrix are made in float64 here.
void check_conjugate_gradients(std::size_t rows, std::size_t columns) {
  CAPTURE(columns);
  constexpr float kDamping = 0.3F;
  const std::vector<float> inputs = random_values((columns + 9) * columns, 5);
  const Matrix gram = gram_of(inputs, columns);
  const std::vector<float> dense = random_values(rows * columns, 6);
  const std::vector<std::uint8_t> mask = random_mask(rows, columns);
  std::vector<float> start = dense;
  std::vector<float> direction(dense.size());
  for (std::size_t i = 0; i < dense.size(); ++i) {
    if (is_dropped(mask, columns, i)) start[i] = 0;
    direction[i] = dense[i] - start[i];
  }
  std::vector<float> inverse_diagonal(columns);
  for (std::size_t i = 0; i < columns; ++i) inverse_diagonal[i] = 1 / (static_cast<float>(gram[i * columns + i]) + kDamping);
  const auto product_of = [&](const std::vector<float>& matrix) {
    std::vector<float> product(matrix.size());
    for (std::size_t i = 0; i < product.size(); ++i) {
      double sum = 0;
      for (std::size_t k = 0; k < columns; ++k)
        sum += static_cast<double>(matrix[i / columns * columns + k]) * gram[k * columns + i % columns];
      product[i] = static_cast<float>(sum);
    }
    return product;
  };
  const auto error_of = [&](const std::vector<float>& fitted) {
    std::vector<double> errors(rows);
    std::vector<float> lost(dense.size());
    for (std::size_t i = 0; i < lost.size(); ++i) lost[i] = dense[i] - fitted[i];
    const std::vector<float> product = product_of(lost);
    for (std::size_t i = 0; i < lost.size(); ++i) {
      errors[i / columns] += static_cast<double>(lost[i]) * (static_cast<double>(product[i]) + static_cast<double>(kDamping * lost[i]));
    }
    return errors;
  };

  DeviceArray<std::uint8_t> device_mask(mask);
  DeviceArray<float> device_inverse(inverse_diagonal);
  DeviceArray<float> device_direction(direction);
  DeviceArray<float> device_product(product_of(direction));
  DeviceArray<float> residual(dense.size());
  DeviceArray<float> fitted(start);
  DeviceArray<double> progress(rows);
  const gpu::ConjugateGradientsTask task{rows,
                                         columns,
                                         kDamping,
                                         device_mask.data(),
                                         device_inverse.data(),
                                         device_product.data(),
                                         device_direction.data(),
                                         residual.data(),
                                         fitted.data(),
                                         progress.data()};
  REQUIRE(gpu::begin_conjugate_gradients(task, nullptr) == cudaSuccess);
  std::vector<double> before = error_of(start);
  for (std::size_t step = 0; step < columns + 2; ++step) {
    const std::vector<float> product = product_of(device_direction.read());
    require_success(cudaMemcpy(device_product.data(), product.data(), product.size() * sizeof(float), cudaMemcpyHostToDevice));
    REQUIRE(gpu::step_conjugate_gradients(task, nullptr) == cudaSuccess);
    const std::vector<double> after = error_of(fitted.read());
    for (std::size_t row = 0; row < rows; ++row) CHECK(after[row] <= before[row] * (1 + 1e-4) + 1e-6);
    before = after;
  }
  // The least error over the kept weights: there its slope along them is 0.
  const std::vector<float> actual = fitted.read();
  std::vector<float> lost(dense.size());
  for (std::size_t i = 0; i < lost.size(); ++i) lost[i] = dense[i] - actual[i];
  const std::vector<float> product = product_of(lost);
  double largest = 0;
  for (std::size_t i = 0; i < lost.size(); ++i) {
    if (is_dropped(mask, columns, i)) {
      CHECK(actual[i] == 0);
    } else {
      largest = std::max(largest, std::abs(static_cast<double>(product[i] + kDamping * lost[i])));
    }
  }
  CHECK(largest < 2e-3 * static_cast<double>(columns));
  for (const bool guarded : {residual.is_guarded(), fitted.is_guarded(), progress.is_guarded(), device_direction.is_guarded()})
    CHECK(guarded);
}

void check_admm(std::size_t rows, std::size_t columns) {
  CAPTURE(columns);
  constexpr float kDamping = 0.1F;
  constexpr float kPenalty = 1.5F;
  const std::vector<float> weights = random_values(rows * columns, 7);
  const std::vector<float> products = random_values(rows * columns, 8);
  const std::vector<float> solution = random_values(rows * columns, 9);
  std::vector<float> norms = random_values(columns, 10);
  for (float& norm : norms) norm = std::abs(norm) + 0.1F;
  const std::vector<std::uint8_t> mask = random_mask(rows, columns);
  DeviceArray<float> device_weights(weights);
  DeviceArray<float> device_products(products);
  DeviceArray<float> device_solution(solution);
  DeviceArray<float> device_norms(norms);
  DeviceArray<std::uint8_t> device_mask(mask);
  DeviceArray<float> sums(weights.size());
  DeviceArray<float> targets(weights.size());
  DeviceArray<float> drawn(weights.size());
  const gpu::AdmmSums task{rows, columns, device_mask.data(), sums.data()};
  REQUIRE(gpu::start_admm(
              {rows, columns, device_weights.data(), device_products.data(), device_norms.data(), kDamping, sums.data(), targets.data()},
              nullptr) == cudaSuccess);
  REQUIRE(gpu::draw_admm(task, targets.data(), kPenalty, drawn.data(), nullptr) == cudaSuccess);
  const std::vector<float> started = sums.read();
  REQUIRE(gpu::move_admm(task, device_solution.data(), nullptr) == cudaSuccess);
  const std::vector<float> moved = sums.read();
  REQUIRE(gpu::finish_admm(task, device_norms.data(), nullptr) == cudaSuccess);
  const std::vector<float> finished = sums.read();
  const std::vector<float> to = drawn.read();
  bool close = true;
  const auto compare = [&](float actual, double expected) {
    close = close && std::abs(static_cast<double>(actual) - expected) <= 1e-5 * (1 + std::abs(expected));
  };
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const auto norm = static_cast<double>(norms[i % columns]);
    const double sum = static_cast<double>(weights[i]) * norm;
    const bool dropped = is_dropped(mask, columns, i);
    compare(started[i], sum);
    compare(to[i], static_cast<double>(products[i]) / norm + static_cast<double>(kDamping) * sum +
                       static_cast<double>(kPenalty) * (dropped ? -sum : sum));
    const double after = static_cast<double>(solution[i]) + (dropped ? sum : 0);
    compare(moved[i], after);
    compare(finished[i], dropped ? 0 : after / norm);
  }
  CHECK(close);
  for (const bool guarded : {sums.is_guarded(), targets.is_guarded(), drawn.is_guarded()}) CHECK(guarded);
}

void check_gram_inverse(std::size_t columns) {
  CAPTURE(columns);
  const std::vector<float> gram = random_values(columns * columns, 11);
  std::vector<float> norms = random_values(columns, 12);
  for (float& norm : norms) norm = std::abs(norm) + 0.1F;
  DeviceArray<float> device_gram(gram);
  DeviceArray<float> device_norms(norms);
  DeviceArray<double> wide(gram.size());
  REQUIRE(gpu::widen_gram({columns, device_gram.data(), nullptr, 0, wide.data()}, nullptr) == cudaSuccess);
  const std::vector<double> exact = wide.read();
  REQUIRE(gpu::widen_gram({columns, device_gram.data(), device_norms.data(), 1.25F, wide.data()}, nullptr) == cudaSuccess);
  const std::vector<double> scaled = wide.read();
  DeviceArray<float> turned(gram.size());
  REQUIRE(gpu::transpose(device_gram.data(), columns, turned.data(), nullptr) == cudaSuccess);
  const std::vector<float> transposed = turned.read();
  // What is below the diagonal is not read.
  std::vector<double> upper = exact;
  for (std::size_t i = 0; i < upper.size(); ++i) {
    if (i / columns > i % columns) upper[i] = std::nan("");
  }
  DeviceArray<double> factor(upper);
  REQUIRE(gpu::transpose_factor(factor.data(), columns, turned.data(), nullptr) == cudaSuccess);
  const std::vector<float> lower = turned.read();
  bool close = true;
  for (std::size_t i = 0; i < gram.size(); ++i) {
    const std::size_t row = i / columns;
    const std::size_t column = i % columns;
    const std::size_t mirrored = column * columns + row;
    const double expected =
        static_cast<double>(gram[i]) / (static_cast<double>(norms[row]) * static_cast<double>(norms[column])) + (row == column ? 1.25 : 0);
    close = close && exact[i] == static_cast<double>(gram[i]) && transposed[mirrored] == gram[i];
    close = close && std::abs(scaled[i] - expected) <= 1e-6 * (1 + std::abs(expected));
    close = close && lower[mirrored] == (row <= column ? gram[i] : 0);
  }
  CHECK(close);
  for (const bool guarded : {wide.is_guarded(), turned.is_guarded()}) CHECK(guarded);
}

void check_drift(std::size_t tokens, std::size_t width) {
  constexpr std::size_t kFirst = 3;
  const std::size_t drift_width = width + kFirst + 2;
  const std::vector<float> dense = random_values(tokens * width, 13);
  const std::vector<float> pruned = random_values(tokens * width, 14);
  DeviceArray<float> device_dense(dense);
  DeviceArray<float> device_pruned(pruned);
  DeviceArray<float> drift{std::vector<float>(tokens * drift_width, 7)};
  REQUIRE(gpu::begin_drift({tokens, device_dense.data(), width, drift.data(), drift_width, kFirst}, nullptr) == cudaSuccess);
  REQUIRE(gpu::finish_drift({tokens, device_pruned.data(), width, drift.data(), drift_width, kFirst}, nullptr) == cudaSuccess);
  const std::vector<float> actual = drift.read();
  bool equal = true;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const std::size_t column = i % drift_width;
    const bool inside = column >= kFirst && column < kFirst + width;
    const std::size_t place = i / drift_width * width + column - kFirst;
    equal = equal && actual[i] == (inside ? dense[place] - pruned[place] : 7);
  }
  CHECK(equal);
  CHECK(drift.is_guarded());
}

}  // namespace

TEST_CASE("row_dots") {
  in_all_schedules([] {
    for (const std::size_t columns : {1U, 255U, 256U, 300U}) check_row_dots(3, columns);
  });
  CHECK(gpu::row_dots(nullptr, nullptr, 0, 1, nullptr, nullptr) == cudaSuccess);
}

TEST_CASE("conjugate gradients find the least error over the kept weights") {
  in_all_schedules([] {
    check_conjugate_gradients(3, 13);
    check_conjugate_gradients(1, 1);
  });
  check_conjugate_gradients(2, 40);
  CHECK(gpu::begin_conjugate_gradients({}, nullptr) == cudaSuccess);
  CHECK(gpu::step_conjugate_gradients({}, nullptr) == cudaSuccess);
}

TEST_CASE("a row that is fitted stays as it is") {
  constexpr std::size_t kColumns = 9;
  DeviceArray<std::uint8_t> mask{std::vector<std::uint8_t>(2)};
  DeviceArray<float> inverse{std::vector<float>(kColumns, 1)};
  DeviceArray<float> zeros{std::vector<float>(kColumns)};
  DeviceArray<float> direction{std::vector<float>(kColumns)};
  DeviceArray<float> residual{std::vector<float>(kColumns)};
  DeviceArray<float> fitted{std::vector<float>(kColumns, 3)};
  DeviceArray<double> progress(1);
  const gpu::ConjugateGradientsTask task{
      1, kColumns, 0.5F, mask.data(), inverse.data(), zeros.data(), direction.data(), residual.data(), fitted.data(), progress.data()};
  REQUIRE(gpu::begin_conjugate_gradients(task, nullptr) == cudaSuccess);
  REQUIRE(gpu::step_conjugate_gradients(task, nullptr) == cudaSuccess);
  CHECK(fitted.read() == std::vector<float>(kColumns, 3));
  CHECK(progress.read()[0] == 0);
}

TEST_CASE("steps of ADMM") {
  in_all_schedules([] {
    check_admm(3, 9);
    check_admm(2, 300);
  });
}

TEST_CASE("widen_gram, transpose and transpose_factor") {
  in_all_schedules([] {
    for (const std::size_t columns : {1U, 31U, 32U, 33U, 70U}) check_gram_inverse(columns);
  });
  CHECK(gpu::widen_gram({}, nullptr) == cudaSuccess);
  CHECK(gpu::transpose(nullptr, 0, nullptr, nullptr) == cudaSuccess);
}

TEST_CASE("begin_drift and finish_drift") {
  in_all_schedules([] {
    check_drift(3, 5);
    check_drift(2, 300);
  });
  CHECK(gpu::begin_drift({}, nullptr) == cudaSuccess);
}

}  // namespace secateur::test

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

#include "cuda/random_values.h"
#include "reference.h"
#include "secateur/error.h"
#include "secateur/repair.h"

namespace secateur::test {
namespace {

constexpr std::size_t kTokens = 150;

// Inputs of a projection in the pruned and in the dense model, and the hidden states its output is added to.
struct Streams {
  std::size_t rows;
  std::size_t columns;
  std::vector<float> weights = random_values(rows * columns, 1);
  // [tokens, columns]
  std::vector<float> pruned = random_values(kTokens * columns, 2);
  std::vector<float> dense = pruned;
  // [tokens, rows]: dense less pruned.
  std::vector<float> behind = random_values(kTokens * rows, 3);

  Streams(std::size_t row_count, std::size_t column_count) : rows(row_count), columns(column_count) {
    const std::vector<float> moved = random_values(dense.size(), 4);
    for (std::size_t i = 0; i < dense.size(); ++i) dense[i] += 0.3F * moved[i];
  }

  std::vector<float> gram() const {
    const Matrix exact = gram_of(pruned, columns);
    return {exact.begin(), exact.end()};
  }

  std::vector<float> drift(bool added) const {
    std::vector<float> matrix((columns + (added ? rows : 0)) * columns);
    for (std::size_t i = 0; i < matrix.size() / columns; ++i) {
      for (std::size_t j = 0; j < columns; ++j) {
        double sum = 0;
        for (std::size_t token = 0; token < kTokens; ++token) {
          const float ahead = i < columns ? dense[token * columns + i] - pruned[token * columns + i] : behind[token * rows + i - columns];
          sum += static_cast<double>(ahead) * static_cast<double>(pruned[token * columns + j]);
        }
        matrix[i * columns + j] = static_cast<float>(sum);
      }
    }
    return matrix;
  }

  // ‖Wx' + r' - r - Ŵx‖² over all tokens.
  double error(const std::vector<float>& fitted, bool added) const {
    double sum = 0;
    for (std::size_t token = 0; token < kTokens; ++token) {
      for (std::size_t row = 0; row < rows; ++row) {
        double difference = added ? static_cast<double>(behind[token * rows + row]) : 0;
        for (std::size_t column = 0; column < columns; ++column) {
          difference += static_cast<double>(weights[row * columns + column]) * static_cast<double>(dense[token * columns + column]) -
                        static_cast<double>(fitted[row * columns + column]) * static_cast<double>(pruned[token * columns + column]);
        }
        sum += difference * difference;
      }
    }
    return sum;
  }
};

std::vector<float> fit(const Streams& streams, const std::vector<float>& drift, const std::vector<std::uint8_t>& mask, Repair method,
                       std::size_t threads) {
  const std::vector<float> gram = streams.gram();
  RepairInput input;
  input.rows = streams.rows;
  input.columns = streams.columns;
  input.samples = 1;
  input.weights = streams.weights;
  input.gram = gram;
  input.drift = drift;
  input.mask = mask;
  RepairOptions options;
  options.method = method;
  options.damping = 1e-4;
  options.iterations = 60;
  MemoryBudget budget(std::uint64_t{1} << 28);
  ThreadPool pool(threads);
  CallContext context;
  const RepairedRows repaired = repair_rows(input, options, budget, pool, context);
  CHECK(repaired.error_after <= repaired.error_before);
  CHECK(budget.used_bytes() == 0);
  CHECK(budget.peak_bytes() <= repair_bytes(streams.rows, streams.columns, method, {false, !drift.empty()}, threads));
  std::vector<float> weights(streams.weights.size());
  std::memcpy(weights.data(), repaired.weights.data(), repaired.weights.size());
  return weights;
}

}  // namespace

TEST_CASE("weights that drop nothing become those whose outputs are closest to the dense model's") {
  for (const bool added : {false, true}) {
    CAPTURE(added);
    const Streams streams(70, 33);
    const std::vector<std::uint8_t> nothing(streams.rows * 5);
    const std::vector<float> fitted = fit(streams, streams.drift(added), nothing, Repair::kFit, 1);
    CHECK(fitted == fit(streams, streams.drift(added), nothing, Repair::kFit, 3));

    // Ŵ = Σ(Wx' + r' - r)xᵀ (Σxxᵀ)⁻¹ has the least error of all: any step away from it adds one.
    const double least = streams.error(fitted, added);
    CHECK(least < 0.97 * streams.error(streams.weights, added));
    for (const float step : {-0.01F, 0.01F}) {
      std::vector<float> moved = fitted;
      for (std::size_t i = 0; i < moved.size(); i += 7) moved[i] += step;
      CHECK(streams.error(moved, added) > least);
    }
  }
}

TEST_CASE("pruned weights come closer to the dense model when the drift is known") {
  const Streams streams(20, 24);
  // Two of three weights are dropped.
  std::vector<std::uint8_t> mask(streams.rows * 3);
  for (std::size_t row = 0; row < streams.rows; ++row) {
    for (std::size_t column = 0; column < streams.columns; ++column) {
      if ((row + column) % 3 != 0) mask[row * 3 + column / 8] |= static_cast<std::uint8_t>(1U << column % 8);
    }
  }
  for (const Repair method : {Repair::kFit, Repair::kAdmm}) {
    for (const bool added : {false, true}) {
      CAPTURE(added);
      const double unaware = streams.error(fit(streams, {}, mask, method, 1), added);
      CHECK(streams.error(fit(streams, streams.drift(added), mask, method, 1), added) < unaware);
    }
  }
}

TEST_CASE("weights of inputs that are always 0 have nothing to make up for") {
  Streams streams(4, 8);
  for (const std::size_t live : {std::size_t{0}, std::size_t{3}}) {
    CAPTURE(live);
    for (std::size_t i = 0; i < streams.pruned.size(); ++i) streams.pruned[i] = i % 8 < live ? streams.dense[i] + 0.1F : 0.0F;
    const std::vector<std::uint8_t> nothing(streams.rows);
    for (const Repair method : {Repair::kFit, Repair::kAdmm}) {
      const std::vector<float> fitted = fit(streams, streams.drift(true), nothing, method, 1);
      for (std::size_t i = 0; i < fitted.size(); ++i) {
        if (i % 8 >= live) CHECK(fitted[i] == doctest::Approx(streams.weights[i]));
      }
    }
  }
}

TEST_CASE("a drift of another size, or of weights that are not fitted, is refused") {
  const Streams streams(4, 8);
  const std::vector<std::uint8_t> mask(streams.rows);
  std::vector<float> drift = streams.drift(false);
  drift.pop_back();
  CHECK_THROWS_WITH_AS(fit(streams, drift, mask, Repair::kFit, 1), doctest::Contains("the drift of the inputs"), Error);
  CHECK_THROWS_WITH_AS(fit(streams, streams.drift(true), mask, Repair::kSparseGpt, 1), doctest::Contains("drift"), Error);
}

}  // namespace secateur::test

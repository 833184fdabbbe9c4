#include "secateur/repair.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "cpu/element_type.h"
#include "cuda/random_values.h"
#include "reference.h"
#include "secateur/error.h"

namespace secateur::test {
namespace {

constexpr std::size_t kSamples = 6;

std::vector<float> values_of(const RepairedRows& repaired, ElementType stored = ElementType::kF32) {
  std::vector<float> values(repaired.weights.size() / (stored == ElementType::kF32 ? 4 : 2));
  cpu::widen(stored, repaired.weights.data(), values.size(), values.data());
  return values;
}

struct Case {
  std::size_t rows;
  std::size_t columns;
  std::vector<float> weights;
  // As the engine gets it, and in float64.
  std::vector<float> gram;
  Matrix exact_gram;
  std::vector<std::int32_t> counts;
  std::vector<std::uint8_t> mask;

  RepairInput input() const { return {rows, columns, kSamples, weights, gram, {}, {}, mask}; }
  bool is_dropped(const std::vector<std::uint8_t>& bits, std::size_t row, std::size_t column) const {
    return (bits[row * ((columns + 7) / 8) + column / 8] >> column % 8 & 1U) != 0;
  }
  double error_of(const float* values, std::size_t row) const {
    std::vector<double> difference(columns);
    for (std::size_t column = 0; column < columns; ++column) {
      const std::size_t i = row * columns + column;
      difference[column] = static_cast<double>(weights[i]) - (values == nullptr ? 0.0 : static_cast<double>(values[i]));
    }
    return output_error(exact_gram, difference);
  }
};

// Two dead inputs, one that another depends on; rows that drop nothing and everything. The lowest |weight| of each row go.
Case make_case(std::size_t rows, std::size_t columns, unsigned seed = 3) {
  const std::size_t tokens = columns / 2 + 5;
  std::vector<float> inputs = random_values(tokens * columns, seed);
  for (std::size_t token = 0; token < tokens; ++token) {
    if (columns > 8) inputs[token * columns + 3] = inputs[token * columns + 7] = 0;
    if (columns > 130) inputs[token * columns + 130] += 3 * inputs[token * columns + 1];
  }
  Case result{rows, columns, random_values(rows * columns, seed + 1), {}, gram_of(inputs, columns), std::vector<std::int32_t>(rows), {}};
  result.gram.assign(result.exact_gram.begin(), result.exact_gram.end());
  for (std::size_t row = 0; row < rows; ++row) result.counts[row] = static_cast<std::int32_t>((row + 1) * columns * 7 / 10 / rows);
  result.counts.front() = rows > 1 ? 0 : result.counts.front();
  result.counts.back() = rows > 2 ? static_cast<std::int32_t>(columns) : result.counts.back();
  result.mask.resize(rows * ((columns + 7) / 8));
  for (std::size_t row = 0; row < rows; ++row) {
    std::vector<std::size_t> order(columns);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, {}, [&](std::size_t column) { return std::abs(result.weights[row * columns + column]); });
    for (std::int32_t i = 0; i < result.counts[row]; ++i) {
      const std::size_t column = order[static_cast<std::size_t>(i)];
      result.mask[row * ((columns + 7) / 8) + column / 8] |= static_cast<std::uint8_t>(1U << column % 8);
    }
  }
  return result;
}

RepairedRows repair(const Case& given, const RepairOptions& options, std::size_t threads = 1) {
  MemoryBudget budget(std::uint64_t{1} << 30);
  ThreadPool pool(threads);
  CallContext context;
  RepairedRows repaired = repair_rows(given.input(), options, budget, pool, context);
  CHECK(budget.peak_bytes() <= repair_bytes(given.rows, given.columns, options.method, {}, threads));
  return repaired;
}

// The kept weights of a row for which the damped error is least.
std::vector<double> exact_fit(const Case& given, std::size_t row, double damping) {
  std::vector<std::size_t> kept;
  for (std::size_t column = 0; column < given.columns; ++column) {
    if (!given.is_dropped(given.mask, row, column)) kept.push_back(column);
  }
  const auto hessian = [&](std::size_t i, std::size_t j) { return given.exact_gram[i * given.columns + j] + (i == j ? damping : 0); };
  Matrix matrix(kept.size() * kept.size());
  std::vector<double> right(kept.size());
  for (std::size_t i = 0; i < kept.size(); ++i) {
    for (std::size_t j = 0; j < kept.size(); ++j) matrix[i * kept.size() + j] = hessian(kept[i], kept[j]);
    for (std::size_t j = 0; j < given.columns; ++j)
      right[i] += hessian(kept[i], j) * static_cast<double>(given.weights[row * given.columns + j]);
  }
  const Matrix inverse = inverse_of(matrix, kept.size());
  std::vector<double> fitted(given.columns);
  for (std::size_t i = 0; i < kept.size(); ++i) {
    for (std::size_t j = 0; j < kept.size(); ++j) fitted[kept[i]] += inverse[i * kept.size() + j] * right[j];
  }
  return fitted;
}

double mean_diagonal(const Case& given) {
  double sum = 0;
  for (std::size_t column = 0; column < given.columns; ++column) sum += given.exact_gram[column * given.columns + column];
  return sum / static_cast<double>(given.columns);
}

constexpr std::pair<std::size_t, std::size_t> kShapes[] = {{1, 1}, {3, 9}, {5, 127}, {17, 128}, {2, 129}, {66, 200}, {4, 321}};

}  // namespace

TEST_CASE("a fit that goes on long enough is the least squares solution") {
  for (const auto& [rows, columns] : kShapes) {
    CAPTURE(rows);
    CAPTURE(columns);
    const Case given = make_case(rows, columns);
    const RepairedRows repaired = repair(given, {.method = Repair::kFit, .iterations = 400});
    const std::vector<float> values = values_of(repaired);
    CHECK(repaired.mask == given.mask);
    CHECK(repaired.dropped_per_row == given.counts);
    const double damping = 0.01 * mean_diagonal(given);
    bool close = true;
    for (std::size_t row = 0; row < rows; ++row) {
      const std::vector<double> expected = exact_fit(given, row, damping);
      for (std::size_t column = 0; column < columns; ++column) {
        const auto value = static_cast<double>(values[row * columns + column]);
        close = close && std::abs(value - expected[column]) < 2e-3;
      }
    }
    CHECK(close);
  }
}

TEST_CASE("a fit never makes a row's output worse, and is the same on any number of threads") {
  for (const int iterations : {0, 1, 3, 20}) {
    for (const double damping : {1e-6, 0.01, 100.0}) {
      CAPTURE(iterations);
      CAPTURE(damping);
      const Case given = make_case(70, 150, 9);
      const RepairOptions options{.method = Repair::kFit, .damping = damping, .iterations = iterations};
      const RepairedRows repaired = repair(given, options);
      const std::vector<float> values = values_of(repaired);
      std::vector<float> masked = given.weights;
      double before = 0;
      double after = 0;
      double energy = 0;
      for (std::size_t row = 0; row < given.rows; ++row) {
        for (std::size_t column = 0; column < given.columns; ++column) {
          if (!given.is_dropped(given.mask, row, column)) continue;
          masked[row * given.columns + column] = 0;
          CHECK(values[row * given.columns + column] == 0.0F);
        }
        const double row_before = given.error_of(masked.data(), row);
        const double row_after = given.error_of(values.data(), row);
        CHECK(row_after <= row_before * (1 + 1e-5) + 1e-9);
        before += row_before;
        after += row_after;
        energy += given.error_of(nullptr, row);
      }
      CHECK(repaired.error_before == doctest::Approx(before / energy).epsilon(1e-4));
      CHECK(repaired.error_after == doctest::Approx(after / energy).epsilon(1e-4));
      const RepairedRows other = repair(given, options, 3);
      CHECK(other.weights == repaired.weights);
    }
  }
}

TEST_CASE("SparseGPT drops and updates as its float64 reference does") {
  for (const auto& [rows, columns] : kShapes) {
    CAPTURE(rows);
    CAPTURE(columns);
    const Case given = make_case(rows, columns);
    const RepairedRows repaired = repair(given, {.method = Repair::kSparseGpt});
    const std::vector<float> values = values_of(repaired);
    const PrunedMatrix expected = reference_sparsegpt(given.exact_gram, kSamples, rows, columns, given.weights, given.counts);
    CHECK(repaired.mask == expected.mask);
    CHECK(repaired.dropped_per_row == given.counts);
    CHECK(repaired.damping == 0.01);
    double largest = 1;
    for (const double weight : expected.weights) largest = std::max(largest, std::abs(weight));
    bool close = true;
    for (std::size_t i = 0; i < expected.weights.size(); ++i) {
      close = close && std::abs(static_cast<double>(values[i]) - expected.weights[i]) < 2e-4 * largest;
      if (expected.weights[i] == 0) CHECK(values[i] == 0);
    }
    CHECK(close);
    const RepairedRows other = repair(given, {.method = Repair::kSparseGpt}, 3);
    CHECK(other.weights == repaired.weights);
  }
}

TEST_CASE("across rows, SparseGPT drops the share of each block of columns") {
  const Case given = make_case(30, 300);
  const RepairedRows repaired = repair(given, {.method = Repair::kSparseGpt, .across_rows = true});
  const std::size_t dropped = std::accumulate(given.counts.begin(), given.counts.end(), std::size_t{0},
                                              [](std::size_t sum, std::int32_t count) { return sum + static_cast<std::size_t>(count); });
  CHECK(repaired.dropped == dropped);
  CHECK(repaired.dropped_per_row != given.counts);
  std::size_t in_first_block = 0;
  for (std::size_t row = 0; row < given.rows; ++row) {
    for (std::size_t column = 0; column < 128; ++column) in_first_block += given.is_dropped(repaired.mask, row, column) ? 1 : 0;
  }
  CHECK(in_first_block == 128 * dropped / 300);
  CHECK(repaired.error_after < repaired.error_before);
}

TEST_CASE("ADMM drops as many as asked for and fits better than on the mask of the lowest magnitudes") {
  for (const auto& [rows, columns] : kShapes) {
    for (const bool across_rows : {false, true}) {
      CAPTURE(rows);
      CAPTURE(columns);
      CAPTURE(across_rows);
      const Case given = make_case(rows, columns);
      const RepairOptions options{.method = Repair::kAdmm, .iterations = 30, .across_rows = across_rows};
      const RepairedRows repaired = repair(given, options);
      const auto dropped = std::accumulate(given.counts.begin(), given.counts.end(), std::uint64_t{0},
                                           [](std::uint64_t sum, std::int32_t count) { return sum + static_cast<std::uint64_t>(count); });
      CHECK(repaired.dropped == dropped);
      if (!across_rows) CHECK(repaired.dropped_per_row == given.counts);
      const std::vector<float> values = values_of(repaired);
      for (std::size_t i = 0; i < values.size(); ++i) {
        if (given.is_dropped(repaired.mask, i / columns, i % columns)) CHECK(values[i] == 0);
      }
      if (rows * columns > 100) {
        const RepairedRows fitted = repair(given, {.method = Repair::kFit, .iterations = 30});
        CHECK(repaired.error_after < fitted.error_after);
      }
      const RepairedRows other = repair(given, options, 3);
      CHECK(other.weights == repaired.weights);
      CHECK(other.mask == repaired.mask);
    }
  }
}

TEST_CASE("no fit, on the mask or with one of ADMM, makes a projection's output worse, however few weights there are") {
  int refitted = 0;
  for (unsigned seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    const Case given = make_case(1 + seed % 4, 1 + seed / 4 % 9, 100 + 2 * seed);
    for (const bool across_rows : {false, true}) {
      for (const Repair method : {Repair::kFit, Repair::kAdmm}) {
        // A damping that leaves the fit little to do.
        const RepairedRows repaired = repair(given, {.method = method, .damping = 10, .across_rows = across_rows});
        CHECK(repaired.error_after <= repaired.error_before);
        CHECK(repaired.dropped == static_cast<std::uint64_t>(std::accumulate(given.counts.begin(), given.counts.end(), 0)));
        if (method == Repair::kAdmm && repaired.mask == given.mask) ++refitted;
      }
    }
  }
  CHECK(refitted > 0);
}

TEST_CASE("a Gram matrix that is not positive definite is damped more, and the record says so") {
  Case given = make_case(4, 40);
  // Rounding may leave a matrix slightly indefinite; this one is more so.
  const double damping = 0.05 * mean_diagonal(given);
  for (std::size_t column = 0; column < given.columns; ++column) given.gram[column * given.columns + column] -= static_cast<float>(damping);
  const RepairedRows repaired = repair(given, {.method = Repair::kSparseGpt});
  CHECK(repaired.damping > 0.05);
  CHECK(repaired.damping < 1);
  given.gram[0] = std::nanf("");
  CHECK_THROWS_WITH_AS(repair(given, {.method = Repair::kSparseGpt}), doctest::Contains("Cholesky"), Error);
}

TEST_CASE("repaired weights are rounded to the stored type, and the error is theirs") {
  const Case given = make_case(20, 90);
  for (const ElementType stored : {ElementType::kBF16, ElementType::kF16}) {
    MemoryBudget budget(std::uint64_t{1} << 30);
    ThreadPool pool(1);
    CallContext context;
    RepairInput input = given.input();
    input.stored = stored;
    const RepairedRows repaired = repair_rows(input, {.method = Repair::kSparseGpt}, budget, pool, context);
    const std::vector<float> values = values_of(repaired, stored);
    REQUIRE(values.size() == given.weights.size());
    double error = 0;
    double energy = 0;
    for (std::size_t row = 0; row < given.rows; ++row) {
      error += given.error_of(values.data(), row);
      energy += given.error_of(nullptr, row);
    }
    CHECK(repaired.error_after == doctest::Approx(error / energy).epsilon(1e-4));
  }
  Case large = make_case(2, 9);
  for (float& weight : large.weights) weight *= 1e6F;
  RepairInput input = large.input();
  input.stored = ElementType::kF16;
  MemoryBudget budget(std::uint64_t{1} << 20);
  ThreadPool pool(1);
  CallContext context;
  CHECK_THROWS_WITH_AS(repair_rows(input, {.method = Repair::kFit}, budget, pool, context), doctest::Contains("too large"), Error);
}

TEST_CASE("a repair refuses what contradicts itself") {
  const Case given = make_case(3, 9);
  MemoryBudget budget(std::uint64_t{1} << 20);
  ThreadPool pool(1);
  CallContext context;
  const auto check = [&](auto change, const char* mentions) {
    RepairInput input = given.input();
    RepairOptions options{.method = Repair::kFit};
    change(input, options);
    CHECK_THROWS_WITH_AS(repair_rows(input, options, budget, pool, context), doctest::Contains(mentions), Error);
    CHECK(budget.used_bytes() == 0);
  };
  check([](RepairInput& input, RepairOptions&) { input.rows = 2; }, "weights");
  check([](RepairInput& input, RepairOptions&) { input.gram = input.gram.first(80); }, "Gram");
  check([](RepairInput& input, RepairOptions&) { input.mask = input.mask.first(5); }, "mask");
  check([](RepairInput&, RepairOptions& options) { options.damping = 0; }, "damping");
  MemoryBudget small(100);
  CHECK_THROWS_AS(repair_rows(given.input(), {.method = Repair::kFit}, small, pool, context), OutOfMemory);
  const std::atomic<bool> cancelled{true};
  CallContext stopped(&cancelled);
  CHECK_THROWS_WITH_AS(repair_rows(given.input(), {.method = Repair::kFit}, budget, pool, stopped), doctest::Contains("cancelled"), Error);
}

}  // namespace secateur::test

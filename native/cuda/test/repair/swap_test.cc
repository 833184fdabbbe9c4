#include "cpu/repair/swap.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "cuda/random_values.h"
#include "reference.h"
#include "secateur/error.h"
#include "secateur/repair.h"

namespace secateur::test {
namespace {

constexpr std::size_t kUnbounded = 100'000;

struct Case {
  std::size_t rows;
  std::size_t columns;
  std::vector<float> weights;
  std::vector<float> fitting;
  std::vector<float> held_out;
  std::vector<std::uint8_t> mask;
  double damping = 0;

  std::size_t mask_bytes() const { return (columns + 7) / 8; }
  bool is_dropped(const std::vector<std::uint8_t>& bits, std::size_t row, std::size_t column) const {
    return (bits[row * mask_bytes() + column / 8] >> column % 8 & 1U) != 0;
  }
  std::size_t count(const std::vector<std::uint8_t>& bits, std::size_t row) const {
    std::size_t dropped = 0;
    for (std::size_t byte = 0; byte < mask_bytes(); ++byte)
      dropped += static_cast<std::size_t>(std::popcount(bits[row * mask_bytes() + byte]));
    return dropped;
  }
  double error(const std::vector<float>& gram, const std::vector<std::uint8_t>& bits, std::size_t row) const {
    std::vector<double> lost(columns);
    for (std::size_t column = 0; column < columns; ++column) {
      if (is_dropped(bits, row, column)) lost[column] = static_cast<double>(weights[row * columns + column]);
    }
    return output_error(Matrix(gram.begin(), gram.end()), lost);
  }
  // What swaps make smaller.
  double damped_error(const std::vector<std::uint8_t>& bits, std::size_t row) const {
    double squares = 0;
    for (std::size_t column = 0; column < columns; ++column) {
      if (is_dropped(bits, row, column)) squares += std::pow(static_cast<double>(weights[row * columns + column]), 2);
    }
    return error(fitting, bits, row) + damping * squares;
  }
};

// Inputs that depend on each other: every column has a part of a few sources. Two are dead, and one is only alive in the held-out samples.
std::vector<float> correlated_gram(std::size_t columns, std::size_t tokens, unsigned seed, bool held_out) {
  constexpr std::size_t kSources = 3;
  const std::vector<float> sources = random_values(tokens * kSources, seed);
  const std::vector<float> parts = random_values(columns * kSources, 77);
  std::vector<float> inputs = random_values(tokens * columns, seed + 1);
  for (std::size_t token = 0; token < tokens; ++token) {
    for (std::size_t column = 0; column < columns; ++column) {
      float& input = inputs[token * columns + column];
      for (std::size_t source = 0; source < kSources; ++source) {
        input += 2 * sources[token * kSources + source] * parts[column * kSources + source];
      }
      if (columns > 8 && (column == 3 || column == 7 || (column == 5 && !held_out))) input = 0;
    }
  }
  const Matrix gram = gram_of(inputs, columns);
  return {gram.begin(), gram.end()};
}

// Of every row another share of the lowest |weight|: of the first nothing, of the last everything. The second row is 0.
Case make_case(std::size_t rows, std::size_t columns, unsigned seed = 3) {
  Case made{rows,
            columns,
            random_values(rows * columns, seed),
            correlated_gram(columns, columns + 20, seed + 1, false),
            correlated_gram(columns, columns / 3 + 8, seed + 3, true),
            {}};
  if (rows > 3) std::fill_n(made.weights.begin() + static_cast<std::ptrdiff_t>(columns), columns, 0.0F);
  made.mask.resize(rows * made.mask_bytes());
  for (std::size_t row = 0; row < rows; ++row) {
    std::vector<float> sizes(columns);
    for (std::size_t column = 0; column < columns; ++column) sizes[column] = std::abs(made.weights[row * columns + column]);
    std::vector<std::size_t> order(columns);
    for (std::size_t column = 0; column < columns; ++column) order[column] = column;
    std::ranges::stable_sort(order, {}, [&](std::size_t column) { return sizes[column]; });
    const std::size_t dropped = rows == 1 ? columns / 2 : columns * row / (rows - 1);
    for (std::size_t i = 0; i < dropped; ++i) {
      made.mask[row * made.mask_bytes() + order[i] / 8] |= static_cast<std::uint8_t>(1U << order[i] % 8);
    }
  }
  return made;
}

struct Swapped {
  std::vector<std::uint8_t> mask;
  std::uint64_t swaps;
};

Swapped swap(const Case& given, std::size_t most, std::size_t threads = 1) {
  MemoryBudget budget(std::uint64_t{1} << 30);
  ThreadPool pool(threads);
  CallContext context;
  Swapped swapped{given.mask, 0};
  swapped.swaps =
      cpu::swap_weights({given.rows, given.columns, given.weights, given.fitting, given.held_out, given.damping, most, swapped.mask.data()},
                        budget, pool, context);
  CHECK(budget.peak_bytes() <= cpu::swap_bytes(given.columns, threads));
  return swapped;
}

// As the formulas have it, in float64 and by computing every error anew: the dropped weight whose return alone is best, for the kept one
// that then costs the least.
std::vector<std::uint8_t> reference_swaps(const Case& given, std::size_t most) {
  std::vector<std::uint8_t> result = given.mask;
  const auto flip = [&](std::vector<std::uint8_t>& bits, std::size_t row, std::size_t column) {
    bits[row * given.mask_bytes() + column / 8] ^= static_cast<std::uint8_t>(1U << column % 8);
  };
  for (std::size_t row = 0; row < given.rows; ++row) {
    std::vector<std::uint8_t> bits = given.mask;
    double least = given.error(given.held_out, bits, row);
    const double smallest = 1e-6 * least;
    // Of the weights on that side of a mask, the one whose way to the other side leaves the least error.
    const auto best_flip = [&](const std::vector<std::uint8_t>& sides, bool dropped) {
      std::pair<double, std::size_t> best{std::numeric_limits<double>::infinity(), given.columns};
      for (std::size_t column = 0; column < given.columns; ++column) {
        if (given.is_dropped(sides, row, column) != dropped) continue;
        flip(bits, row, column);
        best = std::min(best, {given.damped_error(bits, row), column});
        flip(bits, row, column);
      }
      return best;
    };
    for (std::size_t swaps = 0; swaps < most; ++swaps) {
      const double before = given.damped_error(bits, row);
      const std::vector<std::uint8_t> sides = bits;
      const std::size_t restored = best_flip(sides, true).second;
      if (restored == given.columns) break;
      flip(bits, row, restored);
      // What has just come back does not go again.
      const auto [after, dropped] = best_flip(sides, false);
      if (dropped == given.columns || !(after < before * (1 - 1e-6))) break;
      flip(bits, row, dropped);
      const double held_out = given.error(given.held_out, bits, row);
      if (held_out < least - smallest) {
        least = held_out;
        std::copy_n(bits.begin() + static_cast<std::ptrdiff_t>(row * given.mask_bytes()), given.mask_bytes(),
                    result.begin() + static_cast<std::ptrdiff_t>(row * given.mask_bytes()));
      }
    }
  }
  return result;
}

}  // namespace

TEST_CASE("swaps are those of the formula computed in full") {
  for (const unsigned seed : {1U, 5U, 9U, 14U}) {
    for (const auto& [rows, columns] : {std::pair<std::size_t, std::size_t>{1, 1}, {1, 2}, {5, 9}, {6, 24}, {4, 40}}) {
      CAPTURE(seed);
      CAPTURE(columns);
      Case given = make_case(rows, columns, seed);
      given.damping = seed % 2 == 0 ? 30 : 0;
      for (const std::size_t most : {std::size_t{1}, std::size_t{3}, kUnbounded})
        CHECK(swap(given, most).mask == reference_swaps(given, most));
    }
  }
}

TEST_CASE("neither error of a row grows, its count stays, and threads change nothing") {
  Case given = make_case(70, 150);
  given.damping = 2;
  std::vector<double> fitting(given.rows, std::numeric_limits<double>::infinity());
  std::uint64_t swaps_before = 0;
  for (const std::size_t most : {std::size_t{1}, std::size_t{4}, std::size_t{16}, kUnbounded}) {
    CAPTURE(most);
    const Swapped swapped = swap(given, most);
    CHECK(swapped.swaps >= swaps_before);
    CHECK(swapped.swaps <= most * given.rows);
    swaps_before = swapped.swaps;
    for (std::size_t row = 0; row < given.rows; ++row) {
      CAPTURE(row);
      CHECK(given.count(swapped.mask, row) == given.count(given.mask, row));
      const double before = given.damped_error(given.mask, row);
      const double after = given.damped_error(swapped.mask, row);
      CHECK(after <= before);
      // More swaps may be taken when more are allowed: those are further down the same way.
      CHECK(after <= fitting[row] * (1 + 1e-9));
      fitting[row] = after;
      CHECK(given.error(given.held_out, swapped.mask, row) <= given.error(given.held_out, given.mask, row));
    }
    const Swapped other = swap(given, most, 3);
    CHECK(other.mask == swapped.mask);
    CHECK(other.swaps == swapped.swaps);
  }
  CHECK(swaps_before > given.rows);
}

TEST_CASE("rows without a choice, and rows of zeros, stay as they are") {
  const Case given = make_case(6, 31);
  const Swapped swapped = swap(given, kUnbounded);
  const auto same = [&](std::size_t row) {
    return std::equal(swapped.mask.begin() + static_cast<std::ptrdiff_t>(row * given.mask_bytes()),
                      swapped.mask.begin() + static_cast<std::ptrdiff_t>((row + 1) * given.mask_bytes()),
                      given.mask.begin() + static_cast<std::ptrdiff_t>(row * given.mask_bytes()));
  };
  CHECK(same(0));
  CHECK(same(1));
  CHECK(same(5));
  CHECK_FALSE(same(3));
}

TEST_CASE("held-out samples that say otherwise undo every swap") {
  Case given = make_case(5, 40);
  // There every input is as good as another, so that the lowest magnitudes are what is best dropped.
  std::ranges::fill(given.held_out, 0.0F);
  for (std::size_t column = 0; column < given.columns; ++column) given.held_out[column * given.columns + column] = 1;
  const Swapped swapped = swap(given, kUnbounded);
  CHECK(swapped.swaps == 0);
  CHECK(swapped.mask == given.mask);
}

TEST_CASE("a swapped projection has the error of its mask, and a fit follows on it") {
  Case given = make_case(20, 90);
  for (std::size_t column = 0; column < given.columns; ++column) {
    given.damping += 2 * static_cast<double>(given.fitting[column * given.columns + column]) / static_cast<double>(given.columns);
  }
  const Swapped swapped = swap(given, kUnbounded);
  std::vector<float> whole(given.fitting.size());
  std::ranges::transform(given.fitting, given.held_out, whole.begin(), std::plus<>());
  const auto errors_of = [&](const std::vector<std::uint8_t>& mask) {
    double error = 0;
    for (std::size_t row = 0; row < given.rows; ++row) error += given.error(whole, mask, row);
    return error;
  };
  const std::vector<std::uint8_t> everything(given.mask.size(), 0xFF);
  const double energy = errors_of(everything);
  CallContext context;
  ThreadPool pool(2);
  const RepairInput input{given.rows, given.columns, 8, given.weights, given.fitting, given.held_out, {}, given.mask, ElementType::kF32};
  for (const Repair method : {Repair::kNone, Repair::kFit}) {
    MemoryBudget budget(std::uint64_t{1} << 30);
    const RepairedRows rows = repair_rows(input, {.method = method, .swaps = kUnbounded}, budget, pool, context);
    CHECK(budget.peak_bytes() <= repair_bytes(given.rows, given.columns, method, {true, false}, 2));
    CHECK(rows.mask == swapped.mask);
    CHECK(rows.swaps == swapped.swaps);
    CHECK(rows.error_before_swaps == doctest::Approx(errors_of(given.mask) / energy).epsilon(1e-4));
    CHECK(rows.error_before == doctest::Approx(errors_of(swapped.mask) / energy).epsilon(1e-4));
    CHECK(rows.error_before < rows.error_before_swaps);
    if (method == Repair::kNone) CHECK(rows.error_after == rows.error_before);
    if (method == Repair::kFit) CHECK(rows.error_after < rows.error_before);
  }
}

TEST_CASE("swaps are refused without held-out samples, and where a mask is not to be kept") {
  const Case given = make_case(3, 9);
  MemoryBudget budget(std::uint64_t{1} << 20);
  ThreadPool pool(1);
  CallContext context;
  RepairInput input{given.rows, given.columns, 8, given.weights, given.fitting, given.held_out, {}, given.mask, ElementType::kF32};
  CHECK_THROWS_WITH_AS(repair_rows(input, {.method = Repair::kAdmm, .swaps = 1}, budget, pool, context), doctest::Contains("swap"), Error);
  CHECK_THROWS_WITH_AS(repair_rows(input, {.method = Repair::kFit}, budget, pool, context), doctest::Contains("held-out"), Error);
  input.held_out_gram = {};
  CHECK_THROWS_WITH_AS(repair_rows(input, {.method = Repair::kFit, .swaps = 1}, budget, pool, context), doctest::Contains("held-out"),
                       Error);
  CHECK(budget.used_bytes() == 0);
}

}  // namespace secateur::test

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "cpu/allocation/allocate_rows.h"
#include "cpu/allocation/search_arithmetic.h"
#include "secateur/error.h"
#include "secateur/thread_pool.h"

namespace secateur::test {
namespace {

// Weights in steps of a quarter, so that scores are often equal; some columns never get an input.
struct Problem {
  std::size_t rows;
  std::size_t columns;
  std::size_t samples;
  std::vector<float> weights;
  std::vector<float> mean_squares;
  std::vector<float> quality_inputs;

  Problem(std::size_t row_count, std::size_t column_count, std::size_t sample_count)
      : rows(row_count), columns(column_count), samples(sample_count) {
    std::mt19937 random(static_cast<unsigned>(rows * 31 + columns * 7 + samples));
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < rows * columns; ++i) weights.push_back(std::round(4 * normal(random)) / 4);
    for (std::size_t i = 0; i < columns; ++i) mean_squares.push_back(i % 5 == 0 ? 0.0F : std::abs(normal(random)));
    for (std::size_t i = 0; i < samples * columns; ++i) quality_inputs.push_back(normal(random));
  }

  AllocationInput input(double target) const {
    return {.rows = rows,
            .columns = columns,
            .samples = samples,
            .weights = weights,
            .mean_squares = mean_squares,
            .quality_inputs = quality_inputs,
            .target_sparsity = target};
  }
  float score(std::size_t row, std::size_t column, Score kind) const {
    const float magnitude = std::abs(weights[row * columns + column]);
    return kind == Score::kWanda ? magnitude * std::sqrt(mean_squares[column]) : magnitude;
  }
};

constexpr std::size_t kShapes[][3] = {{1, 1, 1}, {3, 7, 2}, {5, 64, 9}, {9, 130, 3}, {33, 257, 17}};

bool is_dropped(const AllocatedRows& rows, std::size_t columns, std::size_t row, std::size_t column) {
  return (rows.mask[row * ((columns + 7) / 8) + column / 8] >> column % 8 & 1U) != 0;
}

AllocatedRows allocate(const AllocationInput& input, const AllocationOptions& options, std::size_t threads = 1) {
  ThreadPool pool(threads);
  CallContext context;
  return allocation::allocate_rows(input, options, pool, context, cpu::selected_instruction_set());
}

// Counts, totals and sparsities say what the mask does, and nothing behind the columns is marked.
void check_counts(const Problem& problem, const AllocatedRows& rows) {
  std::uint64_t total = 0;
  for (std::size_t row = 0; row < problem.rows; ++row) {
    std::int32_t dropped = 0;
    for (std::size_t column = 0; column < problem.columns; ++column) dropped += is_dropped(rows, problem.columns, row, column) ? 1 : 0;
    CHECK(rows.dropped_per_row[row] == dropped);
    total += static_cast<std::uint64_t>(dropped);
    for (std::size_t bit = problem.columns; bit % 8 != 0; ++bit) CHECK(!is_dropped(rows, problem.columns, row, bit));
  }
  CHECK(rows.dropped == total);
  CHECK(rows.baseline_quality == rows.best_quality);
  CHECK(!rows.learning_rate.has_value());
}

}  // namespace

TEST_CASE("patterns drop the lowest of every group, the first of equals") {
  for (const auto& [rows, columns, samples] : kShapes) {
    const Problem problem(rows, columns, samples);
    for (const Pattern pattern : {Pattern{2, 4}, Pattern{4, 8}, Pattern{1, 3}, Pattern{15, 16}}) {
      for (const Score score : {Score::kWanda, Score::kMagnitude}) {
        CAPTURE(columns);
        CAPTURE(pattern.group);
        const AllocationOptions options{.score = score, .allocation = Allocation::kUniform, .pattern = pattern};
        const AllocatedRows result = allocate(problem.input(0.5), options);
        check_counts(problem, result);
        for (std::size_t row = 0; row < rows; ++row) {
          for (std::size_t column = 0; column < columns; ++column) {
            const std::size_t first = column / pattern.group * pattern.group;
            const std::size_t last = std::min(columns, first + pattern.group);
            std::size_t before = 0;
            for (std::size_t other = first; other < last; ++other) {
              const float mine = problem.score(row, column, score);
              const float its = problem.score(row, other, score);
              before += its < mine || (its == mine && other < column) ? 1 : 0;
            }
            CHECK(is_dropped(result, columns, row, column) == (before < (last - first) * pattern.dropped / pattern.group));
          }
        }
      }
    }
  }
}

TEST_CASE("given sparsities drop the lowest scores of every row") {
  for (const auto& [rows, columns, samples] : kShapes) {
    const Problem problem(rows, columns, samples);
    std::vector<float> sparsities(rows);
    for (std::size_t row = 0; row < rows; ++row) sparsities[row] = static_cast<float>(row) / static_cast<float>(rows) * 1.2F - 0.1F;
    AllocationInput input = problem.input(0.5);
    input.row_sparsities = sparsities;
    const AllocatedRows result = allocate(input, {.allocation = Allocation::kGiven});
    check_counts(problem, result);
    CHECK(result.row_sparsities == sparsities);
    for (std::size_t row = 0; row < rows; ++row) {
      CHECK(static_cast<std::size_t>(result.dropped_per_row[row]) == allocation::dropped_count(columns, sparsities[row]));
      float highest_dropped = -1;
      float lowest_kept = INFINITY;
      for (std::size_t column = 0; column < columns; ++column) {
        const float score = problem.score(row, column, Score::kWanda);
        if (is_dropped(result, columns, row, column)) {
          highest_dropped = std::max(highest_dropped, score);
        } else {
          lowest_kept = std::min(lowest_kept, score);
        }
      }
      CHECK(highest_dropped <= lowest_kept);
    }
  }
}

TEST_CASE("the rows that a search found are found again when they are given") {
  const Problem problem(33, 257, 17);
  const AllocatedRows searched = allocate(problem.input(0.6), {});
  AllocationInput input = problem.input(0.6);
  input.row_sparsities = searched.row_sparsities;
  const AllocatedRows given = allocate(input, {.allocation = Allocation::kGiven});
  CHECK(given.mask == searched.mask);
  CHECK(given.dropped_per_row == searched.dropped_per_row);
}

TEST_CASE("the lowest scores of the matrix go, with all that are equal to the highest of them") {
  for (const auto& [rows, columns, samples] : kShapes) {
    const Problem problem(rows, columns, samples);
    for (const double target : {0.1, 0.5, 0.9}) {
      const AllocatedRows result = allocate(problem.input(target), {.score = Score::kMagnitude, .allocation = Allocation::kMatrix});
      check_counts(problem, result);
      std::vector<float> sorted;
      for (const float weight : problem.weights) sorted.push_back(std::abs(weight));
      std::ranges::sort(sorted);
      const float highest = sorted[static_cast<std::size_t>(static_cast<double>(sorted.size()) * target)];
      for (std::size_t i = 0; i < problem.weights.size(); ++i) {
        CHECK(is_dropped(result, columns, i / columns, i % columns) == (std::abs(problem.weights[i]) <= highest));
      }
    }
  }
}

TEST_CASE("a share of the scores meets the target within a thousandth, where scores are not too few") {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  Problem problem(40, 500, 4);
  for (float& weight : problem.weights) weight = normal(random);
  std::ranges::fill(problem.mean_squares, 1.0F);
  for (const double target : {0.3, 0.6, 0.8}) {
    const AllocatedRows result = allocate(problem.input(target), {.allocation = Allocation::kScoreShare});
    check_counts(problem, result);
    CHECK(static_cast<double>(result.dropped) / (40 * 500) == doctest::Approx(target).epsilon(0.002));
    for (std::size_t row = 0; row < problem.rows; ++row) {
      // What is dropped makes about the same share of every row's sum.
      double dropped = 0;
      double all = 0;
      for (std::size_t column = 0; column < problem.columns; ++column) {
        const auto score = static_cast<double>(problem.score(row, column, Score::kWanda));
        all += score;
        if (is_dropped(result, problem.columns, row, column)) dropped += score;
      }
      double share = 0;
      for (std::size_t column = 0; column < problem.columns; ++column) {
        if (is_dropped(result, problem.columns, 0, column)) share += static_cast<double>(problem.score(0, column, Score::kWanda));
      }
      double all_of_first = 0;
      for (std::size_t column = 0; column < problem.columns; ++column)
        all_of_first += static_cast<double>(problem.score(0, column, Score::kWanda));
      CHECK(dropped / all == doctest::Approx(share / all_of_first).epsilon(0.03));
    }
  }
}

TEST_CASE("rules do not depend on threads, and their quality is that of the mask") {
  const Problem problem(70, 130, 8);
  for (const Allocation allocation : {Allocation::kMatrix, Allocation::kScoreShare, Allocation::kUniform}) {
    AllocationOptions options{.allocation = allocation};
    if (allocation == Allocation::kUniform) options.pattern = {4, 8};
    const AllocatedRows one = allocate(problem.input(0.5), options, 1);
    const AllocatedRows three = allocate(problem.input(0.5), options, 3);
    CHECK(one.mask == three.mask);
    CHECK(one.baseline_quality == three.baseline_quality);
    double inner = 0;
    double dense = 0;
    double pruned = 0;
    for (std::size_t row = 0; row < problem.rows; ++row) {
      for (std::size_t sample = 0; sample < problem.samples; ++sample) {
        double y = 0;
        double p = 0;
        for (std::size_t column = 0; column < problem.columns; ++column) {
          const double product = static_cast<double>(problem.weights[row * problem.columns + column]) *
                                 static_cast<double>(problem.quality_inputs[sample * problem.columns + column]);
          y += product;
          if (!is_dropped(one, problem.columns, row, column)) p += product;
        }
        inner += y * p;
        dense += y * y;
        pruned += p * p;
      }
    }
    CHECK(one.baseline_quality == doctest::Approx(inner / std::sqrt(dense * pruned)).epsilon(1e-5));
  }
}

TEST_CASE("rules refuse what contradicts itself") {
  const Problem problem(3, 8, 2);
  const auto refused = [&](AllocationInput input, const AllocationOptions& options) {
    try {
      allocate(input, options);
    } catch (const Error& error) {
      return error.code() == ErrorCode::kInvalidArgument;
    }
    return false;
  };
  CHECK(refused(problem.input(0.5), {.allocation = Allocation::kTrim, .pattern = {2, 4}}));
  CHECK(refused(problem.input(0.5), {.allocation = Allocation::kUniform, .pattern = {4, 4}}));
  CHECK(refused(problem.input(0.5), {.allocation = Allocation::kUniform, .pattern = {0, 4}}));
  CHECK(refused(problem.input(0.5), {.allocation = Allocation::kGiven}));
  AllocationInput input = problem.input(0.5);
  const std::vector<float> sparsities = {0.5F, NAN, 0.5F};
  input.row_sparsities = sparsities;
  CHECK(refused(input, {.allocation = Allocation::kGiven}));
  CHECK(refused(input, {.allocation = Allocation::kUniform}));
}

}  // namespace secateur::test

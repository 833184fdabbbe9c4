// The allocation that splits by squared error, from weights and inputs to the mask.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "cpu/allocation/allocate_rows.h"
#include "cpu/allocation/search_arithmetic.h"
#include "reference.h"
#include "secateur/thread_pool.h"

namespace secateur::test {
namespace {

struct Problem {
  std::size_t rows;
  std::size_t columns;
  std::size_t samples;
  std::vector<float> weights;
  std::vector<float> mean_squares;
  std::vector<float> inputs;

  Problem(std::size_t row_count, std::size_t column_count, std::size_t sample_count, unsigned seed = 1)
      : rows(row_count), columns(column_count), samples(sample_count) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (std::size_t row = 0; row < rows; ++row) {
      const float scale = std::exp(normal(random));
      for (std::size_t column = 0; column < columns; ++column) weights.push_back(scale * normal(random));
    }
    for (std::size_t column = 0; column < columns; ++column) mean_squares.push_back(std::exp(normal(random)));
    for (std::size_t i = 0; i < samples * columns; ++i) inputs.push_back(normal(random) * std::sqrt(mean_squares[i % columns]));
  }

  AllocationInput input(double target) const {
    return {.rows = rows,
            .columns = columns,
            .samples = samples,
            .weights = weights,
            .mean_squares = mean_squares,
            .quality_inputs = inputs,
            .target_sparsity = target};
  }
};

AllocatedRows allocate(const Problem& problem, double target, Allocation rule, std::size_t threads = 1, Score score = Score::kWanda,
                       cpu::InstructionSet instruction_set = cpu::selected_instruction_set()) {
  ThreadPool pool(threads);
  CallContext context;
  return allocation::allocate_rows(problem.input(target), {.score = score, .allocation = rule}, pool, context, instruction_set);
}

// [rows][counts]: squared error in float64 with so many weights of each row's order dropped.
std::vector<std::vector<double>> squared_errors(const Problem& problem, Score score = Score::kWanda) {
  const AllocationInput input = problem.input(0.5);
  const auto orders = reference_orders(input, score);
  std::vector<std::vector<double>> errors(problem.rows);
  for (std::size_t row = 0; row < problem.rows; ++row) {
    std::vector<double> dropped(problem.samples);
    errors[row].push_back(0);
    for (const std::uint32_t column : orders[row]) {
      double sum = 0;
      for (std::size_t sample = 0; sample < problem.samples; ++sample) {
        dropped[sample] += static_cast<double>(problem.weights[row * problem.columns + column]) *
                           static_cast<double>(problem.inputs[sample * problem.columns + column]);
        sum += dropped[sample] * dropped[sample];
      }
      errors[row].push_back(sum);
    }
  }
  return errors;
}

double error_of(const std::vector<std::vector<double>>& errors, const std::vector<std::int32_t>& counts) {
  double sum = 0;
  for (std::size_t row = 0; row < errors.size(); ++row) sum += errors[row][static_cast<std::size_t>(counts[row])];
  return sum;
}

// Of any split of a total in which no row drops more than `highest`.
double least_error(const std::vector<std::vector<double>>& errors, std::size_t highest, std::size_t total) {
  std::vector<double> least(total + 1, std::numeric_limits<double>::infinity());
  least[0] = 0;
  for (const std::vector<double>& of_row : errors) {
    std::vector<double> next(total + 1, std::numeric_limits<double>::infinity());
    for (std::size_t before = 0; before <= total; ++before) {
      for (std::size_t count = 0; count <= std::min(highest, total - before); ++count) {
        next[before + count] = std::min(next[before + count], least[before] + of_row[count]);
      }
    }
    least = std::move(next);
  }
  return least[total];
}

// Rounding of the curves, of all that could be lost.
double tolerance(const std::vector<std::vector<double>>& errors) {
  double all = 0;
  for (const std::vector<double>& of_row : errors) all += of_row.back();
  return 1e-6 * all;
}

std::size_t highest_count(std::size_t columns, double target) {
  return std::max(allocation::dropped_count(columns, 0.95F), allocation::dropped_count(columns, static_cast<float>(target)));
}

}  // namespace

TEST_CASE("the optimal allocation drops what uniform drops, with the least squared error there is") {
  const auto check = [](const Problem& problem, double target, Score score = Score::kWanda) {
    CAPTURE(problem.rows);
    CAPTURE(problem.columns);
    CAPTURE(problem.samples);
    CAPTURE(target);
    const auto errors = squared_errors(problem, score);
    const AllocatedRows uniform = allocate(problem, target, Allocation::kUniform, 1, score);
    for (const cpu::InstructionSet instruction_set : cpu::supported_instruction_sets()) {
      const AllocatedRows optimal = allocate(problem, target, Allocation::kOptimal, 2, score, instruction_set);
      const std::size_t highest = highest_count(problem.columns, target);
      CHECK(optimal.dropped == uniform.dropped);
      for (std::size_t row = 0; row < problem.rows; ++row) {
        const auto count = static_cast<std::size_t>(optimal.dropped_per_row[row]);
        CHECK(count <= highest);
        CHECK(allocation::dropped_count(problem.columns, optimal.row_sparsities[row]) == count);
      }
      CHECK(error_of(errors, optimal.dropped_per_row) <= error_of(errors, uniform.dropped_per_row) + tolerance(errors));
      CHECK(error_of(errors, optimal.dropped_per_row) <=
            least_error(errors, highest, static_cast<std::size_t>(uniform.dropped)) + tolerance(errors));
    }
  };
  for (const double target : {0.01, 0.3, 0.5, 0.7, 0.9, 0.97}) {
    for (const auto& [rows, columns, samples] :
         {std::array<std::size_t, 3>{1, 1, 1}, {1, 40, 3}, {40, 1, 3}, {3, 2, 1}, {4, 17, 40}, {6, 30, 5}, {5, 33, 200}, {20, 24, 9}}) {
      check(Problem(rows, columns, samples), target);
    }
  }
  check(Problem(6, 30, 5), 0.6, Score::kMagnitude);

  Problem dead(12, 25, 6);
  std::fill_n(dead.weights.begin() + 50, 25, 0.0F);
  for (std::size_t column = 0; column < 25; column += 4) {
    dead.mean_squares[column] = 0;
    for (std::size_t sample = 0; sample < 6; ++sample) dead.inputs[sample * 25 + column] = 0;
  }
  check(dead, 0.6);
  // A row that gives nothing loses nothing.
  CHECK(allocate(dead, 0.6, Allocation::kOptimal).dropped_per_row[2] == static_cast<std::int32_t>(highest_count(25, 0.6)));
  Problem silent(4, 10, 3);
  std::ranges::fill(silent.inputs, 0.0F);
  CHECK(allocate(silent, 0.5, Allocation::kOptimal).dropped_per_row == std::vector<std::int32_t>(4, 5));
}

TEST_CASE("at the count that a search ends with, no split has a larger error than the search's") {
  for (const auto& [rows, columns, samples] : {std::array<std::size_t, 3>{5, 33, 17}, {24, 40, 12}, {40, 64, 150}, {64, 48, 5}}) {
    for (const double target : {0.4, 0.7, 0.85}) {
      const Problem problem(rows, columns, samples, static_cast<unsigned>(rows + columns));
      const auto errors = squared_errors(problem);
      const AllocatedRows searched = allocate(problem, target, Allocation::kTrim);
      const AllocatedRows optimal = allocate(problem, target, Allocation::kOptimal);
      // Shares are rounded down row by row, so a search drops a few weights more or fewer.
      const double same_total = least_error(errors, highest_count(columns, target), static_cast<std::size_t>(optimal.dropped));
      const double searched_total = least_error(errors, columns, static_cast<std::size_t>(searched.dropped));
      CHECK(error_of(errors, optimal.dropped_per_row) <= same_total + tolerance(errors));
      CHECK(searched_total <= error_of(errors, searched.dropped_per_row) + tolerance(errors));
      if (searched.dropped >= optimal.dropped) {
        CHECK(error_of(errors, optimal.dropped_per_row) <= error_of(errors, searched.dropped_per_row) + tolerance(errors));
      }
    }
  }
}

TEST_CASE("the optimal allocation is the same bits on any number of threads, and reports qualities as the search does") {
  const Problem problem(150, 96, 140);
  const AllocatedRows one = allocate(problem, 0.7, Allocation::kOptimal);
  for (const std::size_t threads : {std::size_t{2}, std::size_t{3}}) {
    const AllocatedRows other = allocate(problem, 0.7, Allocation::kOptimal, threads);
    CHECK(other.mask == one.mask);
    CHECK(other.row_sparsities == one.row_sparsities);
    CHECK(other.best_quality == one.best_quality);
    CHECK(other.variance_after == one.variance_after);
  }
  const AllocatedRows uniform = allocate(problem, 0.7, Allocation::kUniform);
  CHECK(one.baseline_quality == doctest::Approx(uniform.baseline_quality).epsilon(1e-6));
  CHECK(one.variance_before == doctest::Approx(uniform.variance_before).epsilon(1e-4));
  CHECK(one.best_quality > one.baseline_quality);
  CHECK(!one.learning_rate.has_value());
  CHECK(!one.best_step.has_value());
  const AllocationInput input = problem.input(0.7);
  const Evaluation expected = reference_evaluation(input, reference_orders(input, Score::kWanda))(one.dropped_per_row);
  CHECK(one.best_quality == doctest::Approx(expected.layer_quality).epsilon(1e-6));
}

TEST_CASE("sparsities drop the counts they are made for") {
  for (const std::size_t columns : {1U, 3U, 49U, 107U, 896U, 4864U, 18944U, 53248U}) {
    for (std::size_t count = 0; count <= columns; ++count) {
      REQUIRE(allocation::dropped_count(columns, allocation::sparsity_dropping(columns, count)) == count);
    }
  }
}

TEST_CASE("the scratch memory of the optimal allocation is about the search's") {
  const std::uint64_t searched =
      allocation_scratch_bytes(8192, 28672, 256, Allocation::kTrim, LayerQuality::kCosimFlat, RowQuality::kCosim, 1);
  const std::uint64_t optimal =
      allocation_scratch_bytes(8192, 28672, 256, Allocation::kOptimal, LayerQuality::kCosimFlat, RowQuality::kCosim, 1);
  CHECK(optimal > searched);
  CHECK(optimal < searched + searched / 40);
}

}  // namespace secateur::test

#include "cpu/allocation/allocate_rows.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "reference.h"
#include "secateur/thread_pool.h"

namespace secateur::test {
namespace {

using cpu::InstructionSet;

struct Problem {
  std::size_t rows = 0;
  std::size_t columns = 0;
  std::size_t samples = 0;
  double target = 0.7;
  std::vector<float> weights;
  std::vector<float> mean_squares;
  std::vector<float> quality_inputs;

  AllocationInput input() const {
    return {.rows = rows,
            .columns = columns,
            .samples = samples,
            .weights = weights,
            .mean_squares = mean_squares,
            .quality_inputs = quality_inputs,
            .target_sparsity = target};
  }
};

Problem make_problem(std::size_t rows, std::size_t columns, std::size_t samples, double target = 0.7) {
  std::mt19937 random(static_cast<unsigned>(rows * 31 + columns * 7 + samples));
  std::normal_distribution<float> normal;
  Problem problem{
      .rows = rows, .columns = columns, .samples = samples, .target = target, .weights = {}, .mean_squares = {}, .quality_inputs = {}};
  for (std::size_t i = 0; i < rows * columns; ++i) {
    const float value = normal(random);
    problem.weights.push_back(value * std::abs(value) * (1.0F + static_cast<float>(i / columns % 3)));
  }
  for (std::size_t i = 0; i < columns; ++i) problem.mean_squares.push_back(std::abs(normal(random)));
  for (std::size_t i = 0; i < samples * columns; ++i)
    problem.quality_inputs.push_back(normal(random) * std::sqrt(problem.mean_squares[i % columns]));
  return problem;
}

AllocatedRows allocate(const Problem& problem, const AllocationOptions& options = {}, std::size_t threads = 1,
                       InstructionSet instruction_set = cpu::selected_instruction_set()) {
  ThreadPool pool(threads);
  CallContext context;
  return allocation::allocate_rows(problem.input(), options, pool, context, instruction_set);
}

// The first bits of the row's order are set, and nothing else.
void check_mask(const Problem& problem, const AllocatedRows& result, const std::vector<std::vector<std::uint32_t>>& orders) {
  const std::size_t row_bytes = (problem.columns + 7) / 8;
  std::vector<std::uint8_t> expected(problem.rows * row_bytes);
  std::uint64_t dropped = 0;
  for (std::size_t row = 0; row < problem.rows; ++row) {
    for (std::int32_t j = 0; j < result.dropped_per_row[row]; ++j) {
      const std::uint32_t column = orders[row][static_cast<std::size_t>(j)];
      std::uint8_t& byte = expected[row * row_bytes + column / 8];
      byte = static_cast<std::uint8_t>(byte | 1U << column % 8);
      ++dropped;
    }
  }
  CHECK(result.mask == expected);
  CHECK(result.dropped == dropped);
}

void check_against_reference(const Problem& problem, const AllocationOptions& options, InstructionSet instruction_set) {
  CAPTURE(problem.rows);
  CAPTURE(problem.columns);
  CAPTURE(problem.samples);
  CAPTURE(problem.target);
  CAPTURE(cpu::name_of(instruction_set));
  const AllocationInput input = problem.input();
  const auto orders = reference_orders(input, options.score);
  const ReferenceRows expected =
      search_by_evaluation(problem.rows, problem.columns, problem.target, options, reference_evaluation(input, orders));
  const AllocatedRows result = allocate(problem, options, 1, instruction_set);
  CHECK(result.baseline_quality == doctest::Approx(expected.baseline_quality).epsilon(1e-7));
  CHECK(result.best_quality == doctest::Approx(expected.best_quality).epsilon(1e-7));
  CHECK(result.learning_rate == expected.learning_rate);
  CHECK(result.best_step == expected.best_step);
  CHECK(result.dropped_per_row == expected.dropped_per_row);
  CHECK(result.steps.size() == expected.evaluations);
  check_mask(problem, result, orders);
}

std::string message_of(const Problem& problem, ErrorCode code, const AllocationOptions& options = {}) {
  try {
    allocate(problem, options, 2);
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  FAIL("no error");
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("allocate_rows agrees with the masked evaluation at awkward sizes") {
  for (const InstructionSet instruction_set : cpu::supported_instruction_sets()) {
    for (const Problem& problem :
         {make_problem(1, 1, 1), make_problem(1, 50, 3), make_problem(7, 1, 7), make_problem(3, 2, 2, 0.5), make_problem(33, 65, 7),
          make_problem(130, 31, 17, 0.5), make_problem(9, 40, 128, 0.8), make_problem(12, 64, 300), make_problem(5, 33, 2000, 0.6),
          make_problem(20, 77, 1, 0.3), make_problem(16, 48, 9, 0.0), make_problem(16, 48, 9, -1), make_problem(8, 24, 5, 0.97)}) {
      check_against_reference(problem, {}, instruction_set);
    }
  }
}

TEST_CASE("allocate_rows agrees with the masked evaluation with ties, dead columns, dead rows and the magnitude score") {
  Problem ties = make_problem(20, 60, 11);
  for (float& weight : ties.weights) weight = std::round(weight);
  Problem dead_columns = make_problem(20, 60, 11);
  for (std::size_t column = 0; column < 60; column += 3) {
    dead_columns.mean_squares[column] = 0;
    for (std::size_t sample = 0; sample < 11; ++sample) dead_columns.quality_inputs[sample * 60 + column] = 0;
  }
  Problem dead_rows = make_problem(20, 60, 11);
  std::fill_n(dead_rows.weights.begin() + 120, 60, 0.0F);
  std::fill_n(dead_rows.weights.begin() + 600, 60, -0.0F);
  Problem silent = make_problem(4, 10, 3);
  std::ranges::fill(silent.quality_inputs, 0.0F);
  AllocationOptions magnitude;
  magnitude.score = Score::kMagnitude;
  for (const InstructionSet instruction_set : cpu::supported_instruction_sets()) {
    check_against_reference(ties, {}, instruction_set);
    check_against_reference(dead_columns, {}, instruction_set);
    check_against_reference(dead_rows, {}, instruction_set);
    check_against_reference(silent, {}, instruction_set);
    check_against_reference(ties, magnitude, instruction_set);
  }
}

TEST_CASE("qualities do not depend on the scale of weights and inputs") {
  const Problem problem = make_problem(12, 64, 200);
  Problem small = problem;
  for (float& weight : small.weights) weight *= 0x1p-20F;
  const AllocatedRows expected = allocate(problem);
  const AllocatedRows result = allocate(small);
  CHECK(result.dropped_per_row == expected.dropped_per_row);
  CHECK(result.best_quality == doctest::Approx(expected.best_quality).epsilon(1e-5));
}

TEST_CASE("any number of threads gives the same bits") {
  for (const AllocationOptions& options :
       {AllocationOptions{}, AllocationOptions{.allocation = Allocation::kUniform},
        AllocationOptions{.layer_quality = LayerQuality::kPsnrDim, .row_quality = RowQuality::kMse},
        AllocationOptions{.layer_quality = LayerQuality::kMae}, AllocationOptions{.layer_quality = LayerQuality::kCosimSample}}) {
    for (const Problem& problem : {make_problem(300, 70, 40, 0.55), make_problem(150, 64, 150, 0.5)}) {
      const AllocatedRows one = allocate(problem, options, 1);
      for (const std::size_t threads : {std::size_t{2}, std::size_t{3}}) {
        const AllocatedRows other = allocate(problem, options, threads);
        CHECK(other.mask == one.mask);
        CHECK(other.row_sparsities == one.row_sparsities);
        CHECK(other.best_quality == one.best_quality);
        CHECK(other.variance_after == one.variance_after);
        REQUIRE(other.steps.size() == one.steps.size());
        for (std::size_t i = 0; i < one.steps.size(); ++i) CHECK(other.steps[i].quality == one.steps[i].quality);
      }
    }
  }
}

TEST_CASE("uniform allocation drops the same count everywhere and has the search's baseline quality") {
  for (const double target : {0.3, 0.5, 0.7}) {
    const Problem problem = make_problem(40, 64, 33, target);
    AllocationOptions uniform;
    uniform.allocation = Allocation::kUniform;
    const AllocatedRows result = allocate(problem, uniform, 2);
    const AllocatedRows searched = allocate(problem);
    CHECK(result.baseline_quality == searched.baseline_quality);
    CHECK(result.best_quality == result.baseline_quality);
    CHECK(result.variance_before == searched.variance_before);
    CHECK(!result.learning_rate.has_value());
    CHECK(!result.best_step.has_value());
    const auto count = static_cast<std::int32_t>(std::floor(64.0F * static_cast<float>(target)));
    CHECK(result.dropped_per_row == std::vector<std::int32_t>(40, count));
    CHECK(result.row_sparsities == std::vector<float>(40, static_cast<float>(target)));
    check_mask(problem, result, reference_orders(problem.input(), Score::kWanda));
  }
}

TEST_CASE("metrics of the outputs themselves have the same bits on every processor") {
  for (const LayerQuality metric : {LayerQuality::kCosimSample, LayerQuality::kPsnrSample, LayerQuality::kMae}) {
    for (const Problem& problem : {make_problem(40, 70, 3, 0.3), make_problem(30, 64, 150, 0.6), make_problem(9, 1200, 17, 0.8)}) {
      const AllocatedRows expected = allocate(problem, {.layer_quality = metric}, 1, InstructionSet::kGeneric);
      for (const InstructionSet instruction_set : cpu::supported_instruction_sets()) {
        const AllocatedRows result = allocate(problem, {.layer_quality = metric}, 2, instruction_set);
        CHECK(result.mask == expected.mask);
        REQUIRE(result.steps.size() == expected.steps.size());
        for (std::size_t i = 0; i < result.steps.size(); ++i) CHECK(result.steps[i].quality == expected.steps[i].quality);
      }
    }
  }
}

TEST_CASE("candidates that drop the same weights are equally good, however the search came to them") {
  // So few columns that counts come back to what they were.
  const Problem problem = make_problem(6, 5, 40, 0.5);
  for (const LayerQuality metric : {LayerQuality::kCosimSample, LayerQuality::kPsnrSample, LayerQuality::kMae, LayerQuality::kMse}) {
    const AllocatedRows result = allocate(
        problem,
        {.layer_quality = metric, .iterations = 200, .learning_rates = {0.03, 0.1, 0.3}, .negative_learning_rates = {-0.03, -0.1, -0.3}});
    std::size_t returns = 0;
    std::size_t nearly_equal = 0;
    for (std::size_t i = 0; i < result.steps.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        const double difference = std::abs(result.steps[i].quality - result.steps[j].quality);
        if (difference > 0 && difference < 1e-9) ++nearly_equal;
        if (difference == 0 && result.steps[j + 1].quality != result.steps[j].quality) ++returns;
      }
    }
    CHECK(nearly_equal == 0);
    CHECK(returns > 10);
  }
}

TEST_CASE("without a gain of the quality uniform rows stay") {
  const Problem problem = make_problem(20, 60, 11);
  const AllocatedRows result = allocate(problem, {.layer_quality = LayerQuality::kPass});
  CHECK(result.baseline_quality == 1);
  CHECK(result.best_quality == 1);
  CHECK_FALSE(result.learning_rate.has_value());
  // One step of rates up to the second of each list, and the uniform start.
  CHECK(result.steps.size() == 41);
  CHECK(result.dropped_per_row == std::vector<std::int32_t>(20, 42));
}

TEST_CASE("an error that is too small to be heard makes an infinite signal to noise") {
  Problem problem = make_problem(20, 60, 11);
  for (float& weight : problem.weights) weight *= 1e-6F;
  const AllocatedRows result = allocate(problem, {.layer_quality = LayerQuality::kSnr});
  CHECK(result.baseline_quality == std::numeric_limits<double>::infinity());
  CHECK(result.best_quality == std::numeric_limits<double>::infinity());
  CHECK_FALSE(result.learning_rate.has_value());
}

TEST_CASE("a value that is not finite is named") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Problem problem = make_problem(10, 20, 5);
  problem.weights[7 * 20 + 3] = nan;
  CHECK(contains(message_of(problem, ErrorCode::kNonFinite), "row 7, column 3"));
  problem = make_problem(10, 20, 5);
  problem.quality_inputs[4 * 20 + 11] = -std::numeric_limits<float>::infinity();
  CHECK(contains(message_of(problem, ErrorCode::kNonFinite), "column 11"));
  problem = make_problem(10, 20, 5);
  problem.mean_squares[19] = nan;
  CHECK(contains(message_of(problem, ErrorCode::kNonFinite), "column 19"));
  problem = make_problem(10, 20, 5);
  std::fill_n(problem.weights.begin() + 80, 20, 1e38F);
  for (float& input : problem.quality_inputs) input = std::abs(input) + 1e3F;
  CHECK(contains(message_of(problem, ErrorCode::kNonFinite), "row 4"));
  CHECK(contains(message_of(problem, ErrorCode::kNonFinite, {.layer_quality = LayerQuality::kMae}), "row 4"));
}

TEST_CASE("wrong arguments are named") {
  Problem problem = make_problem(10, 20, 5);
  problem.rows = 11;
  CHECK(contains(message_of(problem, ErrorCode::kInvalidArgument), "weights has 200 elements; expected 220"));
  problem = make_problem(10, 20, 5);
  problem.samples = 0;
  CHECK(contains(message_of(problem, ErrorCode::kInvalidArgument), "samples is 0"));
  problem = make_problem(10, 20, 5, std::numeric_limits<double>::quiet_NaN());
  CHECK(contains(message_of(problem, ErrorCode::kInvalidArgument), "target_sparsity"));
  problem = make_problem(10, 20, 5);
  problem.mean_squares[2] = -1;
  CHECK(contains(message_of(problem, ErrorCode::kInvalidArgument), "column 2 is negative"));
  AllocationOptions options;
  options.iterations = 0;
  CHECK(contains(message_of(make_problem(10, 20, 5), ErrorCode::kInvalidArgument, options), "iterations is 0"));
  options = {.allocation = Allocation::kUniform, .row_quality = RowQuality::kPsnr};
  CHECK(contains(message_of(make_problem(10, 20, 5), ErrorCode::kInvalidArgument, options), "the allocation must be trim"));
}

TEST_CASE("a cancelled call ends with an error") {
  const Problem problem = make_problem(10, 20, 5);
  const std::atomic<bool> cancelled = true;
  ThreadPool pool(2);
  CallContext context(&cancelled);
  CHECK_THROWS_AS(allocate_rows(problem.input(), {}, pool, context), Error);
}

TEST_CASE("every phase is recorded with its work") {
  const Problem problem = make_problem(200, 64, 16, 0.5);
  ThreadPool pool(2);
  for (const LayerQuality metric : {LayerQuality::kCosimFlat, LayerQuality::kMae}) {
    CallContext context;
    allocate_rows(problem.input(), {.layer_quality = metric}, pool, context);
    std::vector<std::string> names;
    for (const PhaseTiming& phase : context.phases()) {
      names.push_back(phase.phase);
      CHECK(phase.bytes > 0);
      CHECK(phase.busy_ns > 0);
      CHECK(phase.start_ns >= 0);
      if (phase.phase == "gemm") CHECK(phase.flops == 2.0 * 200 * 64 * 16);
    }
    CHECK(names == std::vector<std::string>{"curves", "gemm", "mask", "scores", "search", "sort"});
  }
}

TEST_CASE("scratch bytes count the curves and grow with the threads") {
  const std::uint64_t one = allocation_scratch_bytes(8192, 28672, 256, Allocation::kTrim, LayerQuality::kCosimFlat, RowQuality::kCosim, 1);
  const std::uint64_t entries = std::uint64_t{8192} * 28672;
  CHECK(one > entries * 8);
  CHECK(one < entries * 10);
  CHECK(allocation_scratch_bytes(8192, 28672, 256, Allocation::kTrim, LayerQuality::kCosimFlat, RowQuality::kCosim, 2) > one);
  CHECK(allocation_scratch_bytes(8192, 28672, 256, Allocation::kUniform, LayerQuality::kCosimFlat, RowQuality::kCosim, 1) < entries);
  // Two outputs in float64 instead of the curves.
  const std::uint64_t outputs = allocation_scratch_bytes(8192, 28672, 256, Allocation::kTrim, LayerQuality::kMae, RowQuality::kCosim, 1);
  CHECK(outputs > std::uint64_t{2} * 8192 * 256 * sizeof(double));
  CHECK(outputs < entries);
  // A float32 error at every count.
  const std::uint64_t errors = allocation_scratch_bytes(8192, 28672, 256, Allocation::kTrim, LayerQuality::kCosimFlat, RowQuality::kMse, 1);
  CHECK(errors == one + std::uint64_t{8192} * 28673 * sizeof(float));
}

}  // namespace secateur::test

// The decisions of the published TRIM code, recorded: rate, step, count of every row and mask must be equal.
#include <doctest/doctest.h>

#include <cmath>

#include "cpu/allocation/allocate_rows.h"
#include "fixtures.h"
#include "secateur/thread_pool.h"

namespace secateur::test {
namespace {

bool close(double value, double expected, double relative, double absolute) {
  return std::abs(value - expected) <= relative * std::abs(expected) + absolute;
}

void check_case(const TrimCase& one, cpu::InstructionSet instruction_set) {
  CAPTURE(one.file);
  CAPTURE(cpu::name_of(instruction_set));
  ThreadPool pool(1);
  CallContext context;
  const AllocatedRows result = allocation::allocate_rows(one.input(), one.options(), pool, context, instruction_set);

  CHECK(result.learning_rate == one.learning_rate);
  CHECK(result.best_step.value_or(0) == one.best_step);
  CHECK(result.dropped_per_row == one.dropped_per_row);
  CHECK(result.mask == one.mask);
  CHECK(close(result.baseline_quality, one.baseline_quality, 1e-6, 0));
  CHECK(close(result.best_quality, one.best_quality, 1e-6, 0));
  // The published code rounds its row qualities to float32, whose noise alone has a variance of up to 1e-14.
  CHECK(close(result.variance_before, one.variance_before, 1e-4, 1e-13));
  CHECK(close(result.variance_after, one.variance_after, 1e-4, 1e-13));
  // Where all row qualities lie within 0.01 of each other, a move amplifies their float32 noise by up to 2 * rate / 0.01.
  const double tolerance = one.variance_before < 1e-5 ? 2e-6 : 1e-6;
  double difference = 0;
  REQUIRE(result.row_sparsities.size() == one.row_sparsities.size());
  for (std::size_t row = 0; row < one.rows; ++row) {
    difference = std::max(difference, static_cast<double>(std::abs(result.row_sparsities[row] - one.row_sparsities[row])));
  }
  CHECK(difference <= tolerance);
}

}  // namespace

TEST_CASE("allocate_rows takes the published code's decisions") {
  const std::vector<TrimCase> cases = load_trim_cases(SECATEUR_TRIM_FIXTURES);
  REQUIRE(cases.size() == 88);
  for (const cpu::InstructionSet instruction_set : cpu::supported_instruction_sets()) {
    for (const TrimCase& one : cases) check_case(one, instruction_set);
  }
}

}  // namespace secateur::test

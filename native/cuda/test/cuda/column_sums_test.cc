#include "cuda/kernels/column_sums.h"

#include <doctest/doctest.h>

#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {
namespace {

void check_column_sums(std::size_t tokens, std::size_t columns) {
  CAPTURE(tokens);
  CAPTURE(columns);
  const std::vector<float> values = random_values(tokens * columns, 3);
  DeviceArray<float> inputs(values);
  DeviceArray<double> sums(columns);
  REQUIRE(gpu::column_sums_of_squares(inputs.data(), tokens, columns, sums.data(), nullptr) == cudaSuccess);
  const std::vector<double> actual = sums.read();
  for (std::size_t column = 0; column < columns; ++column) {
    double expected = 0;
    for (std::size_t token = 0; token < tokens; ++token) {
      const double value = static_cast<double>(values[token * columns + column]);
      expected += value * value;
    }
    CHECK(actual[column] == doctest::Approx(expected).epsilon(1e-14));
  }
  CHECK(sums.is_guarded());
}

}  // namespace

TEST_CASE("column_sums_of_squares") {
  in_all_schedules([] {
    for (const std::size_t tokens :
         {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{16}, std::size_t{17}, std::size_t{112}, std::size_t{300}}) {
      for (const std::size_t columns : {std::size_t{1}, std::size_t{31}, std::size_t{32}, std::size_t{33}, std::size_t{100}}) {
        check_column_sums(tokens, columns);
      }
    }
  });
}

}  // namespace secateur::test

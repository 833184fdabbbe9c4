#include "cuda/kernels/column_sums.h"

#include <doctest/doctest.h>

#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {
namespace {

void check_column_sums(std::size_t samples, std::size_t tokens, std::size_t columns) {
  CAPTURE(samples);
  CAPTURE(tokens);
  CAPTURE(columns);
  const std::vector<float> values = random_values(samples * tokens * columns, 3);
  DeviceArray<float> inputs(values);
  DeviceArray<double> sums(samples * columns);
  REQUIRE(gpu::column_sums_of_squares({samples, tokens, columns, inputs.data(), sums.data()}, nullptr) == cudaSuccess);
  const std::vector<double> actual = sums.read();
  for (std::size_t sample = 0; sample < samples; ++sample) {
    for (std::size_t column = 0; column < columns; ++column) {
      double expected = 0;
      for (std::size_t token = 0; token < tokens; ++token) {
        const double value = static_cast<double>(values[(sample * tokens + token) * columns + column]);
        expected += value * value;
      }
      CHECK(actual[sample * columns + column] == doctest::Approx(expected).epsilon(1e-14));
    }
  }
  CHECK(sums.is_guarded());
}

}  // namespace

TEST_CASE("column_sums_of_squares") {
  in_all_schedules([] {
    for (const std::size_t tokens :
         {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{16}, std::size_t{17}, std::size_t{112}, std::size_t{300}}) {
      for (const std::size_t columns : {std::size_t{1}, std::size_t{31}, std::size_t{32}, std::size_t{33}, std::size_t{100}}) {
        check_column_sums(1, tokens, columns);
      }
    }
  });
}

TEST_CASE("column_sums_of_squares of many samples are those of each sample alone, bit by bit") {
  constexpr std::size_t kTokens = 37;
  constexpr std::size_t kColumns = 40;
  for (const std::size_t samples : {std::size_t{0}, std::size_t{2}, std::size_t{5}}) check_column_sums(samples, kTokens, kColumns);
  const std::vector<float> values = random_values(3 * kTokens * kColumns, 4);
  DeviceArray<float> inputs(values);
  DeviceArray<double> together(3 * kColumns);
  DeviceArray<double> alone(3 * kColumns);
  REQUIRE(gpu::column_sums_of_squares({3, kTokens, kColumns, inputs.data(), together.data()}, nullptr) == cudaSuccess);
  for (std::size_t sample = 0; sample < 3; ++sample) {
    const gpu::ColumnSumsTask one{1, kTokens, kColumns, inputs.data() + sample * kTokens * kColumns, alone.data() + sample * kColumns};
    REQUIRE(gpu::column_sums_of_squares(one, nullptr) == cudaSuccess);
  }
  CHECK(together.read() == alone.read());
}

}  // namespace secateur::test

#include "cuda/kernels/gram_matrix.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {
namespace {

void check_gram_matrix(std::size_t tokens, std::size_t columns) {
  CAPTURE(tokens);
  CAPTURE(columns);
  const std::vector<float> values = random_values(tokens * columns, 3);
  // Symmetric, as a call before leaves it.
  std::vector<double> before(columns * columns);
  for (std::size_t i = 0; i < before.size(); ++i) before[i] = static_cast<double>(i / columns + i % columns) / 8;
  DeviceArray<float> inputs(values);
  DeviceArray<double> sums(before);
  REQUIRE(gpu::add_gram_matrix({tokens, columns, inputs.data(), sums.data()}, nullptr) == cudaSuccess);
  const std::vector<double> actual = sums.read();
  for (std::size_t row = 0; row < columns; ++row) {
    for (std::size_t column = 0; column < columns; ++column) {
      double expected = before[row * columns + column];
      // Bounds the rounding, which sums that cancel do not.
      double magnitude = 0;
      for (std::size_t token = 0; token < tokens; ++token) {
        const double product = static_cast<double>(values[token * columns + row]) * static_cast<double>(values[token * columns + column]);
        expected += product;
        magnitude += std::abs(product);
      }
      REQUIRE(std::abs(actual[row * columns + column] - expected) <= 1e-6 * magnitude + 1e-12);
      REQUIRE(actual[row * columns + column] == actual[column * columns + row]);
    }
  }
  CHECK(sums.is_guarded());
}

}  // namespace

TEST_CASE("add_gram_matrix") {
  in_all_schedules([] {
    for (const std::size_t tokens : {0U, 1U, 31U, 32U, 33U, 100U}) {
      for (const std::size_t columns : {1U, 15U, 63U, 64U, 65U, 130U}) check_gram_matrix(tokens, columns);
    }
  });
}

TEST_CASE("sums of many tokens are float64") {
  constexpr std::size_t kManyTokens = 20000;
  // Across calls: float32 would not hold the 2^-20 that the last token adds.
  std::vector<float> values(kManyTokens, 0.75F);
  values.back() = 0x1.0p-10F;
  DeviceArray<float> inputs(values);
  DeviceArray<double> sums(std::vector<double>{0});
  REQUIRE(gpu::add_gram_matrix({kManyTokens - 1, 1, inputs.data(), sums.data()}, nullptr) == cudaSuccess);
  REQUIRE(gpu::add_gram_matrix({1, 1, inputs.data() + kManyTokens - 1, sums.data()}, nullptr) == cudaSuccess);
  CHECK(sums.read()[0] == 0.5625 * static_cast<double>(kManyTokens - 1) + 0x1.0p-20);
  // Within one call.
  DeviceArray<float> uneven(std::vector<float>(kManyTokens, 1.1F));
  DeviceArray<double> uneven_sums(std::vector<double>{0});
  REQUIRE(gpu::add_gram_matrix({kManyTokens, 1, uneven.data(), uneven_sums.data()}, nullptr) == cudaSuccess);
  const double product = static_cast<double>(1.1F) * static_cast<double>(1.1F);
  CHECK(uneven_sums.read()[0] == doctest::Approx(product * static_cast<double>(kManyTokens)).epsilon(5e-7));
}

}  // namespace secateur::test

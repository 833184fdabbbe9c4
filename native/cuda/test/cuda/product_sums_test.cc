#include "cuda/kernels/product_sums.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "cpu/repair/product_totals.h"
#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {
namespace {

// As whoever adds parts up reads them.
std::vector<float> rounded(const ProductShape& shape, const std::vector<double>& sums) {
  MemoryBudget budget(std::uint64_t{1} << 30);
  ThreadPool pool(1);
  CallContext context;
  cpu::ProductTotals totals(budget, shape, "a test");
  totals.add({reinterpret_cast<const std::uint8_t*>(sums.data()), sums.size() * sizeof(double)}, pool, context);
  std::vector<float> matrix(shape.rows * shape.columns);
  totals.round_to(matrix.data(), pool, context);
  return matrix;
}

void check_product_sums(std::size_t tokens, const ProductShape& shape) {
  CAPTURE(tokens);
  CAPTURE(shape.rows);
  CAPTURE(shape.columns);
  constexpr std::size_t kSamples = 2;
  const std::vector<float> left = random_values(kSamples * tokens * shape.rows, 3);
  const std::vector<float> right = shape.symmetric ? left : random_values(kSamples * tokens * shape.columns, 4);
  DeviceArray<float> device_left(left);
  DeviceArray<float> device_right(right);
  DeviceArray<double> sums(std::vector<double>(product_values(shape)));
  for (std::size_t sample = 0; sample < kSamples; ++sample) {
    const float* const y = device_left.data() + sample * tokens * shape.rows;
    const float* const x = device_right.data() + sample * tokens * shape.columns;
    REQUIRE(gpu::add_product_sums({tokens, shape, y, shape.symmetric ? y : x, sums.data()}, nullptr) == cudaSuccess);
  }
  const std::vector<float> actual = rounded(shape, sums.read());
  CHECK(sums.is_guarded());
  bool close = true;
  for (std::size_t row = 0; row < shape.rows; ++row) {
    for (std::size_t column = 0; column < shape.columns; ++column) {
      double expected = 0;
      // Bounds the rounding, which sums that cancel do not.
      double magnitude = 0;
      for (std::size_t token = 0; token < kSamples * tokens; ++token) {
        const double product =
            static_cast<double>(left[token * shape.rows + row]) * static_cast<double>(right[token * shape.columns + column]);
        expected += product;
        magnitude += std::abs(product);
      }
      const float sum = actual[row * shape.columns + column];
      close = close && std::abs(static_cast<double>(sum) - expected) <= 1e-6 * magnitude + 1e-12;
      if (shape.symmetric) close = close && sum == actual[column * shape.columns + row];
    }
  }
  CHECK(close);
}

}  // namespace

TEST_CASE("add_product_sums") {
  in_all_schedules([] {
    for (const std::size_t tokens : {1U, 31U, 32U, 33U}) {
      for (const std::size_t columns : {1U, 63U, 65U}) check_product_sums(tokens, gram_shape(columns));
      check_product_sums(tokens, {70, 9});
    }
    check_product_sums(3, gram_shape(300));
    check_product_sums(3, {260, 300});
  });
  CHECK(gpu::add_product_sums({}, nullptr) == cudaSuccess);
}

TEST_CASE("sums do not depend on the order of samples") {
  // Of very different sizes: float64 would not hold them all.
  const std::vector<float> samples = {0x1.234568p+30F, 0x1.2p-20F, -0x1.fffffep+3F, 0x1.5p-37F};
  const ProductShape shape{1, 1};
  DeviceArray<float> values(samples);
  DeviceArray<float> one(std::vector<float>{1});
  std::vector<std::vector<double>> sums;
  for (const std::vector<std::size_t>& order : std::vector<std::vector<std::size_t>>{{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 3, 0, 2}}) {
    DeviceArray<double> sum(std::vector<double>(product_values(shape)));
    for (const std::size_t sample : order) {
      REQUIRE(gpu::add_product_sums({1, shape, values.data() + sample, one.data(), sum.data()}, nullptr) == cudaSuccess);
    }
    sums.push_back(sum.read());
  }
  // However it is split into a high and a low part, rounding the whole gives the same.
  const auto whole = [&](std::size_t order) { return sums[order][0] + sums[order][1]; };
  CHECK(whole(0) == whole(1));
  CHECK(whole(0) == whole(2));
  CHECK(sums[0][1] != 0);
}

TEST_CASE("sums of many tokens of a sample are float64") {
  constexpr std::size_t kManyTokens = 20000;
  DeviceArray<float> uneven(std::vector<float>(kManyTokens, 1.1F));
  DeviceArray<double> sums(std::vector<double>(2));
  REQUIRE(gpu::add_product_sums({kManyTokens, gram_shape(1), uneven.data(), uneven.data(), sums.data()}, nullptr) == cudaSuccess);
  const double product = static_cast<double>(1.1F) * static_cast<double>(1.1F);
  CHECK(sums.read()[0] == doctest::Approx(product * static_cast<double>(kManyTokens)).epsilon(5e-7));
}

}  // namespace secateur::test

#include "cpu/vector_math.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace cpu = secateur::cpu;

namespace {

const std::size_t kSizes[] = {1, 2, 3, 15, 16, 17, 31, 33, 255, 257, 1000};

std::vector<float> random_values(std::size_t size, double scale, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal(0.0, scale);
  std::vector<float> values(size);
  for (float& value : values) value = static_cast<float>(normal(generator));
  return values;
}

double relative_error(double actual, double expected) { return std::abs(actual - expected) / std::max(std::abs(expected), 1e-30); }

}  // namespace

TEST_CASE("the exponential is accurate to float32 over its range") {
  double worst = 0;
  for (double x = -87.0; x < 88.0; x += 0.00137) {
    const float argument = static_cast<float>(x);
    worst = std::max(worst, relative_error(cpu::exponential(argument), std::exp(static_cast<double>(argument))));
  }
  // 2^-23 is one unit in the last place.
  CHECK(worst < 2.0 / (1 << 23));
  CHECK(cpu::exponential(0.0F) == 1.0F);
  CHECK(cpu::exponential(-200.0F) == 0.0F);
  CHECK(cpu::exponential(-std::numeric_limits<float>::infinity()) == 0.0F);
}

TEST_CASE("softmax sums to one, agrees with float64 and takes large values") {
  for (const std::size_t size : kSizes) {
    for (const double scale : {1.0, 50.0}) {
      const std::vector<float> x = random_values(size, scale, 1);
      std::vector<float> actual = x;
      cpu::softmax(actual.data(), size);
      double maximum = -INFINITY;
      for (const float value : x) maximum = std::max(maximum, static_cast<double>(value));
      double sum = 0;
      for (const float value : x) sum += std::exp(static_cast<double>(value) - maximum);
      for (std::size_t i = 0; i < size; ++i) {
        REQUIRE(std::abs(static_cast<double>(actual[i]) - std::exp(static_cast<double>(x[i]) - maximum) / sum) < 3e-7);
      }
      REQUIRE(std::abs(cpu::log_sum_exp(x.data(), size) - (maximum + std::log(sum))) < 1e-6);
    }
  }
}

TEST_CASE("normalisations agree with float64") {
  for (const std::size_t size : kSizes) {
    const std::vector<float> x = random_values(size, 3.0, 2);
    const std::vector<float> weight = random_values(size, 1.0, 3);
    const std::vector<float> bias = random_values(size, 1.0, 4);
    double mean = 0;
    double squares = 0;
    for (const float value : x) mean += value;
    mean /= static_cast<double>(size);
    double variance = 0;
    for (const float value : x) {
      squares += static_cast<double>(value) * value;
      variance += (value - mean) * (value - mean);
    }
    const double rms = std::sqrt(squares / static_cast<double>(size) + 1e-5);
    const double deviation = std::sqrt(variance / static_cast<double>(size) + 1e-5);
    std::vector<float> actual(size);
    cpu::rms_norm(x.data(), weight.data(), size, 1e-5, actual.data());
    for (std::size_t i = 0; i < size; ++i) REQUIRE(std::abs(actual[i] - x[i] / rms * weight[i]) < 1e-5);
    cpu::layer_norm(x.data(), weight.data(), bias.data(), size, 1e-5, actual.data());
    for (std::size_t i = 0; i < size; ++i) REQUIRE(std::abs(actual[i] - ((x[i] - mean) / deviation * weight[i] + bias[i])) < 1e-4);
  }
}

TEST_CASE("activations agree with float64 and do not hide NaN") {
  for (const std::size_t size : kSizes) {
    const std::vector<float> gate = random_values(size, 5.0, 5);
    const std::vector<float> up = random_values(size, 1.0, 6);
    std::vector<float> actual = gate;
    cpu::silu_multiply(actual.data(), up.data(), size);
    for (std::size_t i = 0; i < size; ++i) {
      const double g = gate[i];
      REQUIRE(std::abs(actual[i] - g / (1 + std::exp(-g)) * up[i]) < 1e-5);
    }
    actual = gate;
    cpu::relu(actual.data(), size);
    for (std::size_t i = 0; i < size; ++i) REQUIRE(actual[i] == std::max(gate[i], 0.0F));
  }
  std::vector<float> values(20, -1.0F);
  values[13] = std::numeric_limits<float>::quiet_NaN();
  cpu::relu(values.data(), values.size());
  CHECK(std::isnan(values[13]));
  CHECK_FALSE(cpu::all_finite(values.data(), values.size()));
  values[13] = std::numeric_limits<float>::infinity();
  CHECK_FALSE(cpu::all_finite(values.data(), values.size()));
  values[13] = std::numeric_limits<float>::max();
  CHECK(cpu::all_finite(values.data(), values.size()));
}

TEST_CASE("a rotation keeps lengths and turns pairs half a head apart") {
  for (const std::size_t size : {2U, 4U, 32U, 64U, 66U}) {
    const std::vector<float> x = random_values(size, 1.0, 7);
    std::vector<float> cosines(size / 2);
    std::vector<float> sines(size / 2);
    for (std::size_t i = 0; i < size / 2; ++i) {
      cosines[i] = std::cos(0.3F * static_cast<float>(i + 1));
      sines[i] = std::sin(0.3F * static_cast<float>(i + 1));
    }
    std::vector<float> actual = x;
    cpu::rotate(actual.data(), cosines.data(), sines.data(), size);
    for (std::size_t i = 0; i < size / 2; ++i) {
      const std::size_t other = i + size / 2;
      REQUIRE(actual[i] == doctest::Approx(x[i] * cosines[i] - x[other] * sines[i]));
      REQUIRE(actual[other] == doctest::Approx(x[other] * cosines[i] + x[i] * sines[i]));
    }
  }
}

TEST_CASE("sums of squares are added in float64") {
  for (const std::size_t size : kSizes) {
    const std::vector<float> x = random_values(size, 1e3, 8);
    std::vector<double> sums(size, 0.5);
    cpu::add_squares(x.data(), size, sums.data());
    for (std::size_t i = 0; i < size; ++i) REQUIRE(sums[i] == doctest::Approx(0.5 + static_cast<double>(x[i]) * x[i]).epsilon(1e-15));
  }
}

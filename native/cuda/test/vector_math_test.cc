#include "cpu/vector_math.h"

#include <doctest/doctest.h>

#include <array>
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

// Runs the checks on every instruction set of this processor.
template <class Check>
void on_all_instruction_sets(const Check& check) {
  for (const cpu::InstructionSet instruction_set : cpu::supported_instruction_sets()) {
    CAPTURE(cpu::name_of(instruction_set));
    check(cpu::vector_math(instruction_set));
  }
}

}  // namespace

TEST_CASE("the exponential is accurate to float32 over its range") {
  on_all_instruction_sets([](const cpu::VectorMath& math) {
    double worst = 0;
    for (double x = -87.0; x < 88.0; x += 0.00137) {
      const float argument = static_cast<float>(x);
      worst = std::max(worst, relative_error(math.exponential(argument), std::exp(static_cast<double>(argument))));
    }
    // 2^-23 is one unit in the last place.
    CHECK(worst < 2.0 / (1 << 23));
    CHECK(math.exponential(0.0F) == 1.0F);
    CHECK(math.exponential(-200.0F) == 0.0F);
    CHECK(math.exponential(-std::numeric_limits<float>::infinity()) == 0.0F);
  });
}

TEST_CASE("softmax sums to one, agrees with float64 and takes large values") {
  on_all_instruction_sets([](const cpu::VectorMath& math) {
    for (const std::size_t size : kSizes) {
      for (const double scale : {1.0, 50.0}) {
        const std::vector<float> x = random_values(size, scale, 1);
        std::vector<float> actual = x;
        math.softmax(actual.data(), size);
        double maximum = -INFINITY;
        for (const float value : x) maximum = std::max(maximum, static_cast<double>(value));
        double sum = 0;
        for (const float value : x) sum += std::exp(static_cast<double>(value) - maximum);
        for (std::size_t i = 0; i < size; ++i) {
          REQUIRE(std::abs(static_cast<double>(actual[i]) - std::exp(static_cast<double>(x[i]) - maximum) / sum) < 3e-7);
        }
        REQUIRE(std::abs(math.log_sum_exp(x.data(), size) - (maximum + std::log(sum))) < 1e-6);
      }
    }
  });
}

TEST_CASE("normalisations agree with float64") {
  on_all_instruction_sets([](const cpu::VectorMath& math) {
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
      math.rms_norm(x.data(), weight.data(), size, 1e-5, actual.data());
      for (std::size_t i = 0; i < size; ++i) REQUIRE(std::abs(actual[i] - x[i] / rms * weight[i]) < 1e-5);
      math.layer_norm(x.data(), weight.data(), bias.data(), size, 1e-5, actual.data());
      for (std::size_t i = 0; i < size; ++i) REQUIRE(std::abs(actual[i] - ((x[i] - mean) / deviation * weight[i] + bias[i])) < 1e-4);
    }
  });
}

TEST_CASE("normalisations may take the place of their input") {
  on_all_instruction_sets([](const cpu::VectorMath& math) {
    for (const std::size_t size : kSizes) {
      const std::vector<float> x = random_values(size, 3.0, 2);
      const std::vector<float> weight = random_values(size, 1.0, 3);
      const std::vector<float> bias = random_values(size, 1.0, 4);
      std::vector<float> apart(size);
      std::vector<float> inside = x;
      math.rms_norm(x.data(), weight.data(), size, 1e-5, apart.data());
      math.rms_norm(inside.data(), weight.data(), size, 1e-5, inside.data());
      REQUIRE(inside == apart);
      inside = x;
      math.layer_norm(x.data(), weight.data(), bias.data(), size, 1e-5, apart.data());
      math.layer_norm(inside.data(), weight.data(), bias.data(), size, 1e-5, inside.data());
      REQUIRE(inside == apart);
    }
  });
}

TEST_CASE("the deviation keeps its digits where the mean, or one value, is far from the others") {
  on_all_instruction_sets([](const cpu::VectorMath& math) {
    for (const std::size_t size : {17U, 1000U, 16384U}) {
      for (const bool outlier : {false, true}) {
        std::vector<float> x = random_values(size, 1.0, 5);
        for (float& value : x) value += outlier ? 0.0F : 10000.0F;
        if (outlier) x[0] = 10000.0F;
        double mean = 0;
        for (const float value : x) mean += static_cast<double>(value) / static_cast<double>(size);
        double variance = 0;
        for (const float value : x) variance += (value - mean) * (value - mean) / static_cast<double>(size);
        const std::vector<float> ones(size, 1.0F);
        const std::vector<float> zeros(size, 0.0F);
        std::vector<float> actual(size);
        math.layer_norm(x.data(), ones.data(), zeros.data(), size, 1e-5, actual.data());
        // Differences are free of the mean's rounding to float32; what is left is that of the scale and of two values.
        for (std::size_t i = 1; i < size; ++i) {
          const double expected = (static_cast<double>(x[i]) - x[0]) / std::sqrt(variance + 1e-5);
          REQUIRE(std::abs((static_cast<double>(actual[i]) - actual[0]) - expected) <
                  3e-7 * (std::abs(expected) + std::abs(actual[0]) + 1));
        }
      }
    }
  });
}

TEST_CASE("activations agree with float64 and do not hide NaN") {
  on_all_instruction_sets([](const cpu::VectorMath& math) {
    for (const std::size_t size : kSizes) {
      const std::vector<float> gate = random_values(size, 5.0, 5);
      const std::vector<float> up = random_values(size, 1.0, 6);
      std::vector<float> actual = gate;
      math.silu_multiply(actual.data(), up.data(), size);
      for (std::size_t i = 0; i < size; ++i) {
        const double g = gate[i];
        REQUIRE(std::abs(actual[i] - g / (1 + std::exp(-g)) * up[i]) < 1e-5);
      }
      actual = gate;
      math.relu(actual.data(), size);
      for (std::size_t i = 0; i < size; ++i) REQUIRE(actual[i] == std::max(gate[i], 0.0F));
    }
    std::vector<float> values(20, -1.0F);
    values[13] = std::numeric_limits<float>::quiet_NaN();
    math.relu(values.data(), values.size());
    CHECK(std::isnan(values[13]));
    CHECK_FALSE(math.all_finite(values.data(), values.size()));
    values[13] = std::numeric_limits<float>::infinity();
    CHECK_FALSE(math.all_finite(values.data(), values.size()));
    values[13] = std::numeric_limits<float>::max();
    CHECK(math.all_finite(values.data(), values.size()));
  });
}

TEST_CASE("a rotation keeps lengths and turns pairs half a head apart") {
  on_all_instruction_sets([](const cpu::VectorMath& math) {
    for (const std::size_t size : {2U, 4U, 32U, 64U, 66U}) {
      const std::vector<float> x = random_values(size, 1.0, 7);
      std::vector<float> cosines(size / 2);
      std::vector<float> sines(size / 2);
      for (std::size_t i = 0; i < size / 2; ++i) {
        cosines[i] = std::cos(0.3F * static_cast<float>(i + 1));
        sines[i] = std::sin(0.3F * static_cast<float>(i + 1));
      }
      std::vector<float> actual = x;
      math.rotate(actual.data(), cosines.data(), sines.data(), size);
      for (std::size_t i = 0; i < size / 2; ++i) {
        const std::size_t other = i + size / 2;
        REQUIRE(actual[i] == doctest::Approx(x[i] * cosines[i] - x[other] * sines[i]));
        REQUIRE(actual[other] == doctest::Approx(x[other] * cosines[i] + x[i] * sines[i]));
      }
    }
  });
}

TEST_CASE("sums of squares are added in float64") {
  on_all_instruction_sets([](const cpu::VectorMath& math) {
    for (const std::size_t size : kSizes) {
      const std::vector<float> x = random_values(size, 1e3, 8);
      std::vector<double> sums(size, 0.5);
      math.add_squares(x.data(), size, sums.data());
      for (std::size_t i = 0; i < size; ++i) REQUIRE(sums[i] == doctest::Approx(0.5 + static_cast<double>(x[i]) * x[i]).epsilon(1e-15));
    }
  });
}

TEST_CASE("bfloat16 is rounded to the nearest, ties to even") {
  on_all_instruction_sets([](const cpu::VectorMath& math) {
    const float ulp = 0x1.0p-7F;
    std::vector<float> x = {1.0F, 1.0F + ulp / 2, 1.0F + 3 * ulp / 2, 1.0F + ulp * 0.51F, -0.0F, 3.4e38F, INFINITY, -INFINITY};
    const std::vector<float> expected = {1.0F, 1.0F, 1.0F + 2 * ulp, 1.0F + ulp, -0.0F, INFINITY, INFINITY, -INFINITY};
    while (x.size() < 40) x.push_back(static_cast<float>(x.size()));
    x.push_back(std::numeric_limits<float>::quiet_NaN());
    std::vector<std::uint16_t> narrowed(x.size() + 1, 0xabcd);
    std::vector<float> widened(x.size());
    math.narrow_bf16(x.data(), x.size(), narrowed.data());
    math.widen_bf16(narrowed.data(), x.size(), widened.data());
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(widened[i] == expected[i]);
    CHECK(std::signbit(widened[4]));
    for (std::size_t i = expected.size(); i < 40; ++i) CHECK(widened[i] == x[i]);
    CHECK(std::isnan(widened[40]));
    CHECK(narrowed.back() == 0xabcd);
  });
}

TEST_CASE("transposing moves every value and no other") {
  on_all_instruction_sets([](const cpu::VectorMath& math) {
    for (const std::size_t rows : {std::size_t{1}, std::size_t{15}, std::size_t{16}, std::size_t{33}}) {
      for (const std::size_t columns : {std::size_t{1}, std::size_t{16}, std::size_t{31}, std::size_t{64}}) {
        const std::size_t source_stride = columns + 3;
        const std::size_t result_stride = rows + 2;
        const std::vector<float> source = random_values(rows * source_stride, 1, 9);
        std::vector<float> result(columns * result_stride, -7.0F);
        math.transpose(source.data(), rows, columns, source_stride, result.data(), result_stride);
        for (std::size_t column = 0; column < columns; ++column) {
          for (std::size_t row = 0; row < result_stride; ++row) {
            REQUIRE(result[column * result_stride + row] == (row < rows ? source[row * source_stride + column] : -7.0F));
          }
        }
      }
    }
  });
}

TEST_CASE("zeros of both signs are counted, NaN is none") {
  on_all_instruction_sets([](const cpu::VectorMath& math) {
    std::vector<float> x(100, 0.0F);
    x[3] = -0.0F;
    x[50] = 1e-40F;
    x[99] = std::numeric_limits<float>::quiet_NaN();
    CHECK(math.count_zeros(x.data(), x.size()) == 98);
    CHECK(math.count_zeros(x.data(), 0) == 0);
  });
}

TEST_CASE("a mask drops its values and no other") {
  for (const std::size_t size : kSizes) {
    CAPTURE(size);
    const std::vector<float> x = random_values(size, 1.0, 3);
    std::vector<std::uint8_t> mask((size + 7) / 8);
    std::vector<float> expected = x;
    for (std::size_t i = 0; i < size; ++i) {
      if (i * i % 7 < 3) continue;
      mask[i / 8] |= static_cast<std::uint8_t>(1U << i % 8);
      expected[i] = 0.0F;
    }
    on_all_instruction_sets([&](const cpu::VectorMath& math) {
      std::vector<float> result = x;
      result.push_back(-7.0F);
      math.drop(mask.data(), size, result.data());
      CHECK(result.back() == -7.0F);
      result.pop_back();
      CHECK(result == expected);
    });
  }
}

TEST_CASE("what is dropped is 0 of positive sign, whatever it was, and what is kept keeps its bits") {
  on_all_instruction_sets([](const cpu::VectorMath& math) {
    std::vector<float> x(9, -std::numeric_limits<float>::quiet_NaN());
    const std::array<std::uint8_t, 2> mask{0b01010101, 0b1};
    math.drop(mask.data(), x.size(), x.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
      CHECK(std::isnan(x[i]) == (i % 2 == 1));
      CHECK(std::signbit(x[i]) == (i % 2 == 1));
    }
  });
}

TEST_CASE("kept values are gathered in their order, with their positions") {
  on_all_instruction_sets([](const cpu::VectorMath& math) {
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{31}, std::size_t{64}, std::size_t{256}}) {
      for (const std::size_t step : {std::size_t{1}, std::size_t{3}, std::size_t{300}}) {
        std::vector<float> x = random_values(size, 1.0, 4);
        std::vector<float> expected;
        std::vector<std::uint8_t> expected_positions;
        for (std::size_t i = 0; i < size; ++i) {
          if (i % step != 0) {
            x[i] = i % 2 == 0 ? 0.0F : -0.0F;
            continue;
          }
          expected.push_back(x[i]);
          expected_positions.push_back(static_cast<std::uint8_t>(i));
        }
        std::vector<float> values(size + 1, -7.0F);
        std::vector<std::uint8_t> positions(size + 1, 77);
        REQUIRE(math.gather_kept(x.data(), size, values.data(), positions.data()) == expected.size());
        CHECK(values.back() == -7.0F);
        CHECK(positions.back() == 77);
        values.resize(expected.size());
        positions.resize(expected.size());
        CHECK(values == expected);
        CHECK(positions == expected_positions);
      }
    }
  });
}

TEST_CASE("sums with signs add token by token, to the bit on every instruction set") {
  for (const std::size_t size : kSizes) {
    for (const std::size_t tokens : {1U, 7U, 8U, 9U, 20U, 256U}) {
      for (const std::size_t sketches : {1U, 3U, 8U}) {
        CAPTURE(size);
        CAPTURE(tokens);
        CAPTURE(sketches);
        const std::vector<float> x = random_values(tokens * size, 1.0, 7);
        std::vector<float> signs = random_values(sketches * tokens, 1.0, 8);
        for (float& sign : signs) sign = sign < 0 ? -1.0F : 1.0F;
        const std::vector<float> start = random_values(sketches * size, 1.0, 9);
        std::vector<float> expected = start;
        for (std::size_t sketch = 0; sketch < sketches; ++sketch) {
          for (std::size_t token = 0; token < tokens; ++token) {
            for (std::size_t i = 0; i < size; ++i) {
              const float value = x[token * size + i];
              expected[sketch * size + i] += signs[sketch * tokens + token] < 0 ? -value : value;
            }
          }
        }
        on_all_instruction_sets([&](const cpu::VectorMath& math) {
          std::vector<float> sums = start;
          math.add_signed(x.data(), tokens, size, signs.data(), sketches, sums.data());
          CHECK(sums == expected);
        });
      }
    }
  }
}

#include "cpu/attention.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "cpu/pair_math.h"
#include "secateur/memory_budget.h"

namespace cpu = secateur::cpu;
using namespace secateur;

namespace {

struct Shape {
  std::size_t length;
  std::size_t size;
  // 0 for all keys.
  std::size_t window = 0;
};

const Shape kShapes[] = {{1, 8},   {2, 1},    {31, 2},      {47, 7},      {48, 16},      {49, 33},      {63, 40},     {64, 64},
                         {65, 80}, {97, 128}, {130, 24, 1}, {130, 24, 5}, {200, 32, 64}, {257, 48, 65}, {300, 6, 131}};

// Rows of queries, keys and values that other rows lie between.
constexpr std::size_t kBetween = 3;

// The largest error of a result, relative to the largest value.
double error_of(const Shape& shape, bool bf16) {
  const auto [length, size, window] = shape;
  std::mt19937 generator(7);
  std::normal_distribution<float> normal;
  const std::size_t stride = size + kBetween;
  const auto random_rows = [&] {
    std::vector<float> values(length * stride);
    for (float& value : values) value = normal(generator);
    return values;
  };
  const std::vector<float> queries = random_rows();
  const std::vector<float> keys = random_rows();
  const std::vector<float> values = random_rows();
  std::vector<float> result(length * stride, -7.0F);
  MemoryBudget budget(std::uint64_t{1} << 30);
  const cpu::AttentionLayout layout = cpu::attention_layout(length, size);
  Buffer<float> scratch(budget, layout.total + 1, "scratch");
  // Whatever was left there.
  std::fill_n(scratch.data(), layout.total, std::nanf(""));
  scratch[layout.total] = -7.0F;
  const std::size_t visible = window == 0 ? length : std::min(window, length);
  cpu::attend({queries.data(), stride, keys.data(), values.data(), stride, result.data(), stride, size, visible}, length, bf16, layout,
              scratch.data());
  CHECK(scratch[layout.total] == -7.0F);
  double worst = 0;
  for (std::size_t query = 0; query < length; ++query) {
    const std::size_t first = query + 1 < visible ? 0 : query + 1 - visible;
    std::vector<double> weights;
    for (std::size_t key = first; key <= query; ++key) {
      double score = 0;
      for (std::size_t i = 0; i < size; ++i) {
        score += static_cast<double>(queries[query * stride + i]) * static_cast<double>(keys[key * stride + i]);
      }
      weights.push_back(std::exp(score / std::sqrt(static_cast<double>(size))));
    }
    double total = 0;
    for (const double weight : weights) total += weight;
    for (std::size_t i = 0; i < size; ++i) {
      double expected = 0;
      for (std::size_t key = first; key <= query; ++key) {
        expected += weights[key - first] / total * static_cast<double>(values[key * stride + i]);
      }
      const double error = std::abs(static_cast<double>(result[query * stride + i]) - expected);
      // Written so that NaN counts.
      if (!(error <= worst)) worst = std::isnan(error) ? INFINITY : error;
    }
    for (std::size_t i = size; i < stride; ++i) REQUIRE(result[query * stride + i] == -7.0F);
  }
  return worst;
}

}  // namespace

TEST_CASE("attention of a head agrees with float64") {
  for (const Shape& shape : kShapes) {
    CAPTURE(shape.length);
    CAPTURE(shape.size);
    CAPTURE(shape.window);
    CHECK(error_of(shape, false) < 2e-6);
  }
}

TEST_CASE("attention in bfloat16 agrees with float64, where the processor has products of pairs") {
  if (cpu::pair_math() == nullptr) {
    MESSAGE("skipped: this processor has no AVX512_BF16, or another instruction set was selected");
    return;
  }
  for (const Shape& shape : kShapes) {
    CAPTURE(shape.length);
    CAPTURE(shape.size);
    CAPTURE(shape.window);
    // Values of up to 4 are rounded to 8 bits, and so are the weights; scores of up to 5 are good to 0.02.
    const double error = error_of(shape, true);
    CHECK(error < 0.05);
    // A window of one key has nothing but the rounding of its value.
    CHECK(error > 1e-4);
  }
}

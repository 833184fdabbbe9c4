#include "cuda/kernels/sketches.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {
namespace {

constexpr std::size_t kTileTokens = 256;
constexpr std::size_t kWordTokens = 64;

// Signs as any bits: which of them a sample gets is not the kernel's business.
std::vector<std::uint64_t> random_signs(std::size_t count) {
  std::mt19937_64 random(9);
  std::vector<std::uint64_t> signs(count);
  for (std::uint64_t& word : signs) word = random();
  return signs;
}

void check_sketches(std::size_t samples, std::size_t tokens, std::size_t columns, std::size_t sketches) {
  CAPTURE(samples);
  CAPTURE(tokens);
  CAPTURE(columns);
  CAPTURE(sketches);
  const std::size_t words = (tokens + kWordTokens - 1) / kWordTokens;
  const double scale = 1 / std::sqrt(static_cast<double>(tokens));
  const std::vector<float> values = random_values(samples * tokens * columns, 3);
  const std::vector<std::uint64_t> negative = random_signs(samples * sketches * words);
  DeviceArray<float> inputs(values);
  DeviceArray<std::uint64_t> signs(negative);
  DeviceArray<float> results(samples * sketches * columns);
  REQUIRE(gpu::sketch_inputs({samples, tokens, columns, sketches, scale, inputs.data(), signs.data(), results.data()}, nullptr) ==
          cudaSuccess);
  const std::vector<float> actual = results.read();
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const std::size_t column = i % columns;
    const std::size_t sample = i / columns / sketches;
    double exact = 0;
    double squares = 0;
    // As the CPU adds.
    double total = 0;
    float of_tile = 0;
    for (std::size_t token = 0; token < tokens; ++token) {
      const bool taken_away = (negative[i / columns * words + token / kWordTokens] >> token % kWordTokens & 1U) != 0;
      const float value = values[(sample * tokens + token) * columns + column];
      const float signed_value = taken_away ? -value : value;
      exact += static_cast<double>(signed_value);
      squares += static_cast<double>(value) * static_cast<double>(value);
      of_tile += signed_value;
      if ((token + 1) % kTileTokens != 0 && token + 1 != tokens) continue;
      total += static_cast<double>(of_tile);
      of_tile = 0;
    }
    CHECK(actual[i] == static_cast<float>(total * scale));
    CHECK(std::abs(static_cast<double>(actual[i]) - exact * scale) <= 1e-5 * std::sqrt(squares) * scale);
  }
  CHECK(results.is_guarded());
}

}  // namespace

TEST_CASE("sketch_inputs adds as the CPU does, bit by bit, and as float64 does but for rounding") {
  in_all_schedules([] {
    for (const std::size_t tokens :
         {std::size_t{1}, std::size_t{63}, std::size_t{64}, std::size_t{65}, std::size_t{256}, std::size_t{257}}) {
      check_sketches(2, tokens, 33, 3);
    }
    check_sketches(1, 40, 64, 8);
    check_sketches(3, 70, 5, 1);
  });
}

TEST_CASE("sketch_inputs of more tiles of tokens than are added up side by side") { check_sketches(1, 2100, 3, 2); }

TEST_CASE("sketch_inputs of nothing does nothing, and of more sketches than it makes at once is refused") {
  DeviceArray<float> results(4);
  CHECK(gpu::sketch_inputs({0, 1, 4, 1, 1, nullptr, nullptr, results.data()}, nullptr) == cudaSuccess);
  CHECK(gpu::sketch_inputs({1, 1, 4, 0, 1, nullptr, nullptr, results.data()}, nullptr) == cudaSuccess);
  CHECK(gpu::sketch_inputs({1, 1, 4, 9, 1, nullptr, nullptr, results.data()}, nullptr) == cudaErrorInvalidValue);
}

}  // namespace secateur::test

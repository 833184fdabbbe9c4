#include "cpu/repair/gram_sums.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "cuda/random_values.h"
#include "reference.h"
#include "secateur/error.h"

namespace secateur::test {
namespace {

constexpr std::size_t kTokens = 5;

std::vector<float> rounded(const cpu::GramSums& sums, ThreadPool& pool) {
  CallContext context;
  std::vector<float> matrix(sums.columns() * sums.columns());
  sums.round_to(matrix.data(), pool, context);
  return matrix;
}

}  // namespace

TEST_CASE("a Gram matrix agrees with float64, whatever the order and the place of its samples") {
  MemoryBudget budget(std::uint64_t{1} << 30);
  CallContext context;
  ThreadPool one(1);
  ThreadPool three(3);
  for (const std::size_t columns : {1U, 7U, 256U, 257U, 600U}) {
    CAPTURE(columns);
    constexpr std::size_t kSamples = 6;
    std::vector<float> inputs = random_values(kSamples * kTokens * columns, 5);
    // Samples of very different sizes: sums in float64 would depend on their order.
    for (std::size_t i = 0; i < inputs.size(); ++i) inputs[i] *= std::exp2(static_cast<float>(i / (kTokens * columns) * 9));
    const auto sample = [&](std::size_t index) { return inputs.data() + index * kTokens * columns; };

    cpu::GramSums together(budget, columns, 1, "a test");
    together.add(inputs.data(), kSamples, kTokens, one, context);
    const std::vector<float> expected = rounded(together, one);
    const Matrix reference = gram_of(inputs, columns);
    bool close = true;
    for (std::size_t i = 0; i < columns; ++i) {
      for (std::size_t j = 0; j < columns; ++j) {
        const double scale = std::sqrt(reference[i * columns + i] * reference[j * columns + j]);
        close = close && std::abs(static_cast<double>(expected[i * columns + j]) - reference[i * columns + j]) <= 1e-6 * scale;
        close = close && expected[i * columns + j] == expected[j * columns + i];
      }
    }
    CHECK(close);

    cpu::GramSums first(budget, columns, 3, "a test");
    cpu::GramSums second(budget, columns, 3, "a test");
    for (const std::size_t index : {5U, 0U, 3U}) first.add(sample(index), 1, kTokens, three, context);
    for (const std::size_t index : {1U, 4U, 2U}) second.add(sample(index), 1, kTokens, three, context);
    CHECK(first.content().size() == cpu::GramSums::content_bytes(columns));
    // From memory of any alignment.
    std::vector<std::uint8_t> moved(second.content().size() + 1);
    std::copy(second.content().begin(), second.content().end(), moved.begin() + 1);
    first.add(std::span(moved).subspan(1), three, context);
    CHECK(rounded(first, three) == expected);
  }
}

TEST_CASE("sums of a Gram matrix refuse what does not fit and what is not finite") {
  MemoryBudget budget(std::uint64_t{1} << 24);
  ThreadPool pool(1);
  CallContext context;
  cpu::GramSums sums(budget, 3, 1, "a test");
  const std::vector<std::uint8_t> other(cpu::GramSums::content_bytes(2));
  CHECK_THROWS_WITH_AS(sums.add(other, pool, context), doctest::Contains("3 columns"), Error);
  const std::vector<float> inputs = {1, std::numeric_limits<float>::infinity(), 2};
  sums.add(inputs.data(), 1, 1, pool, context);
  CHECK_THROWS_WITH_AS(rounded(sums, pool), doctest::Contains("input columns"), Error);
  MemoryBudget small(1000);
  CHECK_THROWS_AS(cpu::GramSums(small, 100, 1, "a test"), OutOfMemory);
  CHECK(small.used_bytes() == 0);
}

}  // namespace secateur::test

#include "cpu/repair/product_sums.h"

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

std::vector<float> rounded(const cpu::ProductSums& sums, ThreadPool& pool) {
  CallContext context;
  std::vector<float> matrix(sums.shape().rows * sums.shape().columns);
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

    cpu::ProductSums together(budget, gram_shape(columns), 1, "a test");
    together.add(inputs.data(), inputs.data(), kSamples, kTokens, one, context);
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

    cpu::ProductSums first(budget, gram_shape(columns), 3, "a test");
    cpu::ProductSums second(budget, gram_shape(columns), 3, "a test");
    for (const std::size_t index : {5U, 0U, 3U}) first.add(sample(index), sample(index), 1, kTokens, three, context);
    for (const std::size_t index : {1U, 4U, 2U}) second.add(sample(index), sample(index), 1, kTokens, three, context);
    CHECK(first.content().size() == cpu::ProductSums::content_bytes(gram_shape(columns)));
    // From memory of any alignment.
    std::vector<std::uint8_t> moved(second.content().size() + 1);
    std::copy(second.content().begin(), second.content().end(), moved.begin() + 1);
    first.add(std::span(moved).subspan(1), three, context);
    CHECK(rounded(first, three) == expected);
  }
}

TEST_CASE("products of two kinds of vectors agree with float64, whatever the place of their samples") {
  MemoryBudget budget(std::uint64_t{1} << 28);
  CallContext context;
  ThreadPool pool(2);
  for (const auto& [rows, columns] : {std::pair<std::size_t, std::size_t>{1, 1}, {3, 260}, {257, 2}, {300, 513}}) {
    CAPTURE(rows);
    CAPTURE(columns);
    constexpr std::size_t kSamples = 3;
    const std::vector<float> left = random_values(kSamples * kTokens * rows, 6);
    const std::vector<float> right = random_values(kSamples * kTokens * columns, 7);
    const ProductShape shape = {rows, columns};
    cpu::ProductSums together(budget, shape, 2, "a test");
    together.add(left.data(), right.data(), kSamples, kTokens, pool, context);
    const std::vector<float> matrix = rounded(together, pool);
    bool close = true;
    for (std::size_t i = 0; i < rows; ++i) {
      for (std::size_t j = 0; j < columns; ++j) {
        double sum = 0;
        for (std::size_t token = 0; token < kSamples * kTokens; ++token) {
          sum += static_cast<double>(left[token * rows + i]) * static_cast<double>(right[token * columns + j]);
        }
        close = close && std::abs(static_cast<double>(matrix[i * columns + j]) - sum) <= 1e-5;
      }
    }
    CHECK(close);

    cpu::ProductSums parts(budget, shape, 2, "a test");
    for (const std::size_t sample : {2U, 0U, 1U}) {
      cpu::ProductSums part(budget, shape, 2, "a test");
      part.add(left.data() + sample * kTokens * rows, right.data() + sample * kTokens * columns, 1, kTokens, pool, context);
      CHECK(part.content().size() == cpu::ProductSums::content_bytes(shape));
      parts.add(part.content(), pool, context);
    }
    CHECK(rounded(parts, pool) == matrix);
  }
}

TEST_CASE("sums of a Gram matrix refuse what does not fit and what is not finite") {
  MemoryBudget budget(std::uint64_t{1} << 24);
  ThreadPool pool(1);
  CallContext context;
  cpu::ProductSums sums(budget, gram_shape(3), 1, "a test");
  const std::vector<std::uint8_t> other(cpu::ProductSums::content_bytes(gram_shape(2)));
  CHECK_THROWS_WITH_AS(sums.add(other, pool, context), doctest::Contains("[3, 3]"), Error);
  const std::vector<float> inputs = {1, std::numeric_limits<float>::infinity(), 2};
  sums.add(inputs.data(), inputs.data(), 1, 1, pool, context);
  CHECK_THROWS_WITH_AS(rounded(sums, pool), doctest::Contains("row 0 and column 1"), Error);
  MemoryBudget small(1000);
  CHECK_THROWS_AS(cpu::ProductSums(small, gram_shape(100), 1, "a test"), OutOfMemory);
  CHECK(small.used_bytes() == 0);
}

}  // namespace secateur::test

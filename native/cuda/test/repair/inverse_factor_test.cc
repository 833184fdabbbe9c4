#include "cpu/repair/inverse_factor.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "cuda/random_values.h"
#include "reference.h"

namespace secateur::test {
namespace {

// Gram matrix of a few more random vectors than columns, and a diagonal that keeps it well conditioned.
std::vector<float> positive_definite(std::size_t size) {
  const Matrix gram = gram_of(random_values((size + 3) * size, 11), size);
  std::vector<float> matrix(gram.begin(), gram.end());
  for (std::size_t i = 0; i < size; ++i) matrix[i * size + i] += 0.1F * static_cast<float>(size);
  return matrix;
}

}  // namespace

TEST_CASE("the factor of an inverse, of sizes around those of tiles, on any number of threads") {
  CallContext context;
  ThreadPool one(1);
  ThreadPool three(3);
  for (const std::size_t size : {1U, 2U, 127U, 128U, 129U, 300U}) {
    CAPTURE(size);
    const std::vector<float> matrix = positive_definite(size);
    std::vector<float> factor = matrix;
    for (std::size_t i = 0; i < size; ++i) {
      for (std::size_t j = i + 1; j < size; ++j) factor[i * size + j] = std::nanf("");
    }
    std::vector<float> other = factor;
    REQUIRE(cpu::inverse_factor(factor.data(), size, one, context));
    REQUIRE(cpu::inverse_factor(other.data(), size, three, context));

    // U is the only upper triangular matrix with a positive diagonal for which U · matrix · Uᵀ = 1.
    Matrix product(size * size);
    for (std::size_t i = 0; i < size; ++i) {
      for (std::size_t j = 0; j < size; ++j) {
        for (std::size_t t = i; t < size; ++t)
          product[i * size + j] += static_cast<double>(factor[i * size + t]) * static_cast<double>(matrix[t * size + j]);
      }
    }
    bool close = true;
    bool same = true;
    for (std::size_t i = 0; i < size; ++i) {
      CHECK(factor[i * size + i] > 0);
      for (std::size_t j = 0; j < size; ++j) {
        double sum = i == j ? -1 : 0;
        for (std::size_t t = j; t < size; ++t) sum += product[i * size + t] * static_cast<double>(factor[j * size + t]);
        // Not true of NaN.
        close = close && std::abs(sum) < 1e-4;
        same = same && (j < i || factor[i * size + j] == other[i * size + j]);
      }
    }
    CHECK(close);
    CHECK(same);
  }
}

TEST_CASE("what is not positive definite has no factor") {
  CallContext context;
  ThreadPool pool(1);
  constexpr std::size_t kSize = 140;
  for (const std::size_t bad : {std::size_t{0}, std::size_t{70}, kSize - 1}) {
    for (const float pivot : {-1.0F, 0.0F, std::nanf("")}) {
      std::vector<float> matrix = positive_definite(kSize);
      matrix[bad * kSize + bad] = pivot;
      CHECK_FALSE(cpu::inverse_factor(matrix.data(), kSize, pool, context));
    }
  }
}

}  // namespace secateur::test

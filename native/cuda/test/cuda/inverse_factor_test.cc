#include "cuda/kernels/inverse_factor.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {
namespace {

// Gram matrix of a few more random vectors than columns, and a diagonal that keeps it well conditioned.
std::vector<double> positive_definite(std::size_t size) {
  const std::size_t vectors = size + 3;
  const std::vector<float> values = random_values(vectors * size, 11);
  std::vector<double> matrix(size * size);
  for (std::size_t i = 0; i < size; ++i) {
    for (std::size_t j = 0; j < size; ++j) {
      double sum = i == j ? 0.1 * static_cast<double>(size) : 0;
      for (std::size_t v = 0; v < vectors; ++v) {
        sum += static_cast<double>(values[v * size + i]) * static_cast<double>(values[v * size + j]);
      }
      matrix[i * size + j] = sum;
    }
  }
  return matrix;
}

void check_inverse_factor(std::size_t size) {
  CAPTURE(size);
  const std::vector<double> matrix = positive_definite(size);
  std::vector<double> lower = matrix;
  for (std::size_t i = 0; i < size; ++i) {
    for (std::size_t j = i + 1; j < size; ++j) lower[i * size + j] = std::nan("");
  }
  DeviceArray<double> device_matrix(lower);
  DeviceArray<unsigned> failed(std::vector<unsigned>{0});
  REQUIRE(gpu::inverse_factor(device_matrix.data(), size, failed.data(), nullptr) == cudaSuccess);
  const std::vector<double> factor = device_matrix.read();
  CHECK(device_matrix.is_guarded());
  CHECK(failed.read()[0] == 0);
  CHECK(failed.is_guarded());

  // U is the only upper triangular matrix with a positive diagonal for which U · matrix · Uᵀ = 1.
  std::vector<double> product(size * size);
  for (std::size_t i = 0; i < size; ++i) {
    for (std::size_t j = 0; j < size; ++j) {
      for (std::size_t t = i; t < size; ++t) product[i * size + j] += factor[i * size + t] * matrix[t * size + j];
    }
  }
  bool close = true;
  for (std::size_t i = 0; i < size; ++i) {
    CHECK(factor[i * size + i] > 0);
    for (std::size_t j = 0; j < size; ++j) {
      double sum = i == j ? -1 : 0;
      for (std::size_t t = j; t < size; ++t) sum += product[i * size + t] * factor[j * size + t];
      // Not true of NaN.
      close = close && std::abs(sum) < 1e-12;
    }
  }
  CHECK(close);
}

}  // namespace

TEST_CASE("inverse_factor") {
  in_all_schedules([] {
    for (const std::size_t size : {1U, 2U, 63U, 64U, 65U, 128U, 200U}) check_inverse_factor(size);
  });
  CHECK(gpu::inverse_factor(nullptr, 0, nullptr, nullptr) == cudaSuccess);
}

TEST_CASE("inverse_factor of what is not positive definite") {
  DeviceArray<double> zero(std::vector<double>{0});
  DeviceArray<unsigned> zero_failed(std::vector<unsigned>{0});
  REQUIRE(gpu::inverse_factor(zero.data(), 1, zero_failed.data(), nullptr) == cudaSuccess);
  CHECK(zero_failed.read()[0] == 1);
  for (const std::size_t bad : {0U, 70U}) {
    constexpr std::size_t kSize = 71;
    for (const double pivot : {-1.0, 0.0, std::nan("")}) {
      std::vector<double> matrix = positive_definite(kSize);
      matrix[bad * kSize + bad] = pivot;
      DeviceArray<double> device_matrix(matrix);
      DeviceArray<unsigned> failed(std::vector<unsigned>{0});
      REQUIRE(gpu::inverse_factor(device_matrix.data(), kSize, failed.data(), nullptr) == cudaSuccess);
      CHECK(failed.read()[0] == 1);
    }
  }
}

}  // namespace secateur::test

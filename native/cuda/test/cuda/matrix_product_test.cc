#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "cuda/kernels/matrix_product_bf16.h"
#include "cuda/kernels/matrix_product_f32.h"
#include "cuda/tensor_core.h"
#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {
namespace {

struct Shape {
  std::size_t m;
  std::size_t n;
  std::size_t k;
};

// k beyond the pipeline's stages, tails in every dimension, rows that do not begin on 16 bytes.
const Shape kShapes[] = {{1, 1, 1}, {3, 5, 7}, {64, 64, 32}, {128, 128, 96}, {129, 130, 160}, {17, 257, 33}, {1, 40, 136}, {130, 8, 24}};

void check_product(const Shape& shape, const std::vector<float>& left, const std::vector<float>& right, const std::vector<float>* bias,
                   const std::vector<float>& actual) {
  for (std::size_t m = 0; m < shape.m; ++m) {
    for (std::size_t n = 0; n < shape.n; ++n) {
      double expected = bias == nullptr ? 0.0 : static_cast<double>((*bias)[n]);
      double magnitude = std::abs(expected);
      for (std::size_t k = 0; k < shape.k; ++k) {
        const double product = static_cast<double>(left[m * shape.k + k]) * static_cast<double>(right[n * shape.k + k]);
        expected += product;
        magnitude += std::abs(product);
      }
      REQUIRE(std::abs(static_cast<double>(actual[m * shape.n + n]) - expected) <= 1e-6 * magnitude + 1e-30);
    }
  }
}

}  // namespace

TEST_CASE("float32 products agree with float64") {
  in_all_schedules([] {
    for (const Shape& shape : kShapes) {
      CAPTURE(shape.m);
      CAPTURE(shape.n);
      CAPTURE(shape.k);
      const std::vector<float> left = random_values(shape.m * shape.k, 1);
      const std::vector<float> right = random_values(shape.n * shape.k, 2);
      const std::vector<float> bias = random_values(shape.n, 3);
      DeviceArray<float> device_left(left);
      DeviceArray<float> device_right(right);
      DeviceArray<float> device_bias(bias);
      DeviceArray<float> result(shape.m * shape.n);
      for (const bool biased : {false, true}) {
        REQUIRE(gpu::matrix_product_f32({shape.m, shape.n, shape.k, device_left.data(), device_right.data(),
                                         biased ? device_bias.data() : nullptr, result.data()},
                                        nullptr) == cudaSuccess);
        check_product(shape, left, right, biased ? &bias : nullptr, result.read());
        CHECK(result.is_guarded());
      }
    }
  });
}

TEST_CASE("bfloat16 products are exact but for their sums") {
  in_all_schedules([] {
    for (const Shape& shape : kShapes) {
      CAPTURE(shape.m);
      CAPTURE(shape.n);
      CAPTURE(shape.k);
      std::vector<float> left = random_values(shape.m * shape.k, 1);
      std::vector<float> right = random_values(shape.n * shape.k, 2);
      const auto narrow_all = [](std::vector<float>& values) {
        std::vector<gpu::bfloat16> narrowed;
        for (float& value : values) {
          narrowed.push_back(gpu::narrow(value));
          value = gpu::widen(narrowed.back());
        }
        return narrowed;
      };
      DeviceArray<gpu::bfloat16> device_left(narrow_all(left));
      DeviceArray<gpu::bfloat16> device_right(narrow_all(right));
      const std::vector<float> bias = random_values(shape.n, 3);
      DeviceArray<float> device_bias(bias);
      DeviceArray<float> result(shape.m * shape.n);
      REQUIRE(gpu::matrix_product_bf16(
                  {shape.m, shape.n, shape.k, device_left.data(), device_right.data(), device_bias.data(), result.data()}, nullptr) ==
              cudaSuccess);
      check_product(shape, left, right, &bias, result.read());
      CHECK(result.is_guarded());
    }
  });
}

}  // namespace secateur::test

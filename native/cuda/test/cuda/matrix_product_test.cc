#include <doctest/doctest.h>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <vector>

#include "cuda/kernels/matrix_product_f32.h"
#include "cuda/kernels/matrix_product_narrow.h"
#include "cuda/tensor_core.h"
#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {
namespace {

struct ProductShape {
  std::size_t rows;
  std::size_t columns;
  std::size_t inner;
  // Elements before the first: shifts the operands off their alignment.
  std::size_t shift = 0;
  bool bias = false;
};

// Random values after `shift` NaNs.
template <class Element>
std::vector<Element> shifted_values(std::size_t count, std::size_t shift, unsigned seed, Element (*convert)(float)) {
  std::vector<Element> values(shift, convert(std::numeric_limits<float>::quiet_NaN()));
  for (const float value : random_values(count, seed)) values.push_back(convert(value));
  return values;
}

float keep_float(float value) { return value; }

// Returns the product. Task: the kernel's own.
template <class Task, class Element>
std::vector<float> check_matrix_product(const ProductShape& shape, cudaError_t (*product)(const Task&, cudaStream_t),
                                        Element (*convert)(float), float (*widen)(Element)) {
  const auto [rows, columns, inner, shift, with_bias] = shape;
  CAPTURE(rows);
  CAPTURE(columns);
  CAPTURE(inner);
  CAPTURE(shift);
  const std::vector<Element> left = shifted_values(rows * inner, shift, 1, convert);
  const std::vector<Element> right = shifted_values(columns * inner, shift, 2, convert);
  const std::vector<float> bias = random_values(columns, 3);
  DeviceArray<Element> device_left(left);
  DeviceArray<Element> device_right(right);
  DeviceArray<float> device_bias(bias);
  DeviceArray<float> device_result(rows * columns);
  const Task task{rows,
                  columns,
                  inner,
                  device_left.data() + shift,
                  device_right.data() + shift,
                  with_bias ? device_bias.data() : nullptr,
                  device_result.data()};
  REQUIRE(product(task, nullptr) == cudaSuccess);
  std::vector<float> result = device_result.read();
  CHECK(device_result.is_guarded());

  double worst = 0;
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t column = 0; column < columns; ++column) {
      double expected = 0;
      double magnitude = 0;
      const auto add = [&](double term) {
        expected += term;
        magnitude += std::abs(term);
      };
      for (std::size_t i = 0; i < inner; ++i) {
        add(static_cast<double>(widen(left[shift + row * inner + i])) * static_cast<double>(widen(right[shift + column * inner + i])));
      }
      if (with_bias) add(static_cast<double>(bias[column]));
      const double error = std::abs(static_cast<double>(result[row * columns + column]) - expected);
      // Written so that NaN counts.
      if (!(error <= worst * magnitude)) worst = magnitude > 0 ? error / magnitude : std::numeric_limits<double>::infinity();
    }
  }
  CHECK(worst < 1e-6);
  return result;
}

template <class Task, class Element>
void check_matrix_products(cudaError_t (*product)(const Task&, cudaStream_t), Element (*convert)(float), float (*widen)(Element)) {
  const auto check = [&](const ProductShape& shape) { return check_matrix_product<Task>(shape, product, convert, widen); };
  SUBCASE("sizes around the edges of tiles") {
    in_all_schedules([&] {
      for (const ProductShape& shape : std::initializer_list<ProductShape>{{1, 1, 1},
                                                                           {1, 1, 200},
                                                                           {3, 5, 7},
                                                                           {16, 8, 16},
                                                                           {64, 64, 32},
                                                                           {65, 63, 33},
                                                                           {63, 65, 31},
                                                                           {64, 128, 64},
                                                                           {128, 192, 64},
                                                                           {1100, 128, 16},
                                                                           {130, 70, 129},
                                                                           {17, 257, 96},
                                                                           {1, 40, 136},
                                                                           {130, 8, 24}}) {
        check(shape);
      }
    });
  }
  SUBCASE("bias") {
    check({33, 70, 40, 0, true});
    check({5, 130, 0, 0, true});
  }
  SUBCASE("an empty inner dimension gives zeros") { check({5, 70, 0}); }
  SUBCASE("rows that begin anywhere") {
    for (const std::size_t inner : {40, 41, 44}) {
      for (const std::size_t shift : {0, 1, 4, 8}) check({20, 35, inner, shift, true});
    }
  }
  // Of the larger tiles. They share the source of the smaller, which has been run in all orders.
  SUBCASE("many tiles") {
    check({1, 127 * 128 + 1, 136});
    check({2100, 927, 19, 0, true});
    check({127 * 128 + 7, 3, 35, 1, true});
  }
  SUBCASE("an element does not depend on the rest of the matrix") {
    // Nor do races, and the PTX is compared on the matrices above.
    if (cuda_on_host::kRaceCheck || cuda_on_host::has_launch_hook()) return;
    const std::vector<float> whole = check({2100, 1000, 37});
    const std::vector<float> row = check({1, 1000, 37});
    for (std::size_t column = 0; column < row.size(); ++column) REQUIRE(row[column] == whole[column]);
  }
  SUBCASE("nothing to do") {
    CHECK(product(Task{0, 5, 5, nullptr, nullptr, nullptr, nullptr}, nullptr) == cudaSuccess);
    CHECK(product(Task{5, 0, 5, nullptr, nullptr, nullptr, nullptr}, nullptr) == cudaSuccess);
  }
}

}  // namespace

TEST_CASE("products of float32 agree with float64") {
  check_matrix_products<gpu::MatrixProductF32, float>(gpu::matrix_product_f32, keep_float, keep_float);
}

TEST_CASE_TEMPLATE("products of 16-bit values are exact but for their sums", Narrow, gpu::bfloat16, gpu::float16) {
  check_matrix_products<gpu::MatrixProductNarrow<Narrow>, Narrow>(gpu::matrix_product_narrow, gpu::narrow<Narrow>, gpu::widen);
}

TEST_CASE("products of float16 take the smallest values and the largest, and become infinite with what is") {
  const std::vector<float> values = {65504, 0x1p-24F, 0x1p-14F, 65520, -1};
  std::vector<gpu::float16> stored;
  for (const float value : values) stored.push_back(gpu::narrow<gpu::float16>(value));
  DeviceArray<gpu::float16> left(stored);
  DeviceArray<gpu::float16> right(std::vector<gpu::float16>{gpu::narrow<gpu::float16>(0x1p-24F)});
  DeviceArray<float> result(values.size());
  REQUIRE(gpu::matrix_product_narrow({values.size(), 1, 1, left.data(), right.data(), nullptr, result.data()}, nullptr) == cudaSuccess);
  const float unit = 0x1p-24F;
  CHECK(result.read() == std::vector<float>{65504 * unit, unit * unit, 0x1p-14F * unit, INFINITY, -unit});
}

}  // namespace secateur::test

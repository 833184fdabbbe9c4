#include "cuda/matrix_library.h"

#include <dlfcn.h>
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cuda/cublas_lt.h"
#include "cuda/kernels/matrix_product_f32.h"
#include "cuda/kernels/matrix_product_narrow.h"
#include "cuda/tensor_core.h"
#include "device_array.h"
#include "fake_cublas_lt.h"
#include "random_values.h"

namespace secateur::test {
namespace {

const std::string kFakes = SECATEUR_FAKE_CUBLAS_LT_DIR;

class ChosenFolder {
 public:
  explicit ChosenFolder(const std::string& folder) { setenv("SECATEUR_CUBLAS_DIR", folder.c_str(), 1); }
  ~ChosenFolder() { unsetenv("SECATEUR_CUBLAS_DIR"); }
  ChosenFolder(const ChosenFolder&) = delete;
  ChosenFolder& operator=(const ChosenFolder&) = delete;
};

template <class Value>
std::vector<Value> read_device(const void* data, std::size_t count) {
  std::vector<Value> values(count);
  require_success(cudaMemcpy(values.data(), data, count * sizeof(Value), cudaMemcpyDeviceToHost));
  return values;
}

std::vector<float> read_operand(const FakeProduct& product, const void* data, std::size_t count) {
  if (product.element_type == 0) return read_device<float>(data, count);
  std::vector<float> values;
  const auto read_narrow = [&]<class Narrow>(Narrow) {
    for (const Narrow value : read_device<Narrow>(data, count)) values.push_back(gpu::widen(value));
  };
  if (product.element_type == gpu::CublasLt::kF16) {
    read_narrow(gpu::float16{});
  } else {
    read_narrow(gpu::bfloat16{});
  }
  return values;
}

// What tells a product of the library from one of the kernels of ours; below the tolerance of the comparison.
constexpr float kMark = 5e-5F;

void multiply_on_host(const FakeProduct& product, float offset) {
  const std::vector<float> left = read_operand(product, product.left, product.rows * product.inner);
  const std::vector<float> right = read_operand(product, product.right, product.columns * product.inner);
  const std::vector<float> bias =
      product.bias == nullptr ? std::vector<float>(product.rows, 0.0F) : read_device<float>(product.bias, product.rows);
  std::vector<float> result(product.rows * product.columns);
  for (std::size_t row = 0; row < product.rows; ++row) {
    for (std::size_t column = 0; column < product.columns; ++column) {
      double sum = static_cast<double>(bias[row]) + static_cast<double>(offset);
      for (std::size_t i = 0; i < product.inner; ++i) {
        sum += static_cast<double>(left[row * product.inner + i]) * static_cast<double>(right[column * product.inner + i]);
      }
      result[column * product.rows + row] = static_cast<float>(sum);
    }
  }
  require_success(cudaMemcpy(product.result, result.data(), result.size() * sizeof(float), cudaMemcpyHostToDevice));
}

void multiply_marked(const FakeProduct& product) { multiply_on_host(product, kMark); }
void multiply_wrongly(const FakeProduct& product) { multiply_on_host(product, 3e-4F); }
// Of one type only.
template <int Type>
void multiply_type_wrongly(const FakeProduct& product) {
  multiply_on_host(product, product.element_type == Type ? 1.0F : 0.0F);
}

template <class Narrow>
void check_narrow_product(gpu::MatrixLibrary& library) {
  const auto narrowed = [](std::size_t count, unsigned seed) {
    std::vector<Narrow> values;
    for (const float value : random_values(count, seed)) values.push_back(gpu::narrow<Narrow>(value));
    return values;
  };
  DeviceArray<Narrow> left(narrowed(20 * 40, 1));
  DeviceArray<Narrow> right(narrowed(30 * 40, 2));
  DeviceArray<float> expected(20 * 30);
  DeviceArray<float> actual(20 * 30);
  gpu::MatrixProductNarrow<Narrow> task{20, 30, 40, left.data(), right.data(), nullptr, expected.data()};
  REQUIRE(gpu::matrix_product_narrow(task, nullptr) == cudaSuccess);
  task.result = actual.data();
  REQUIRE(library.multiply(task, nullptr) == cudaSuccess);
  const std::vector<float> own = expected.read();
  const std::vector<float> its = actual.read();
  for (std::size_t i = 0; i < own.size(); ++i) {
    CHECK(static_cast<double>(its[i]) - static_cast<double>(own[i]) == doctest::Approx(5e-5).epsilon(0.2));
  }
}

// The fake's state, as new.
FakeCublasLt& fresh_fake(const std::string& folder) {
  void* const library = dlopen((folder + "/libcublasLt.so.13").c_str(), RTLD_NOW | RTLD_LOCAL);
  REQUIRE(library != nullptr);
  FakeCublasLt& fake = *reinterpret_cast<FakeCublasLtFunction>(dlsym(library, kFakeCublasLt))();
  fake = {};
  fake.multiply = multiply_marked;
  return fake;
}

// Largest distance of the library's product from the kernels' own.
double distance_from_own(gpu::MatrixLibrary& library, std::size_t m, std::size_t n, std::size_t k, std::size_t shift, bool biased) {
  DeviceArray<float> left(random_values(m * k + shift, 1));
  DeviceArray<float> right(random_values(n * k + shift, 2));
  DeviceArray<float> bias(random_values(n, 3));
  DeviceArray<float> expected(m * n);
  DeviceArray<float> actual(m * n);
  gpu::MatrixProductF32 task{m, n, k, left.data() + shift, right.data() + shift, biased ? bias.data() : nullptr, expected.data()};
  require_success(gpu::matrix_product_f32(task, nullptr));
  task.result = actual.data();
  require_success(library.multiply(task, nullptr));
  const std::vector<float> own = expected.read();
  const std::vector<float> its = actual.read();
  double distance = 0;
  for (std::size_t i = 0; i < own.size(); ++i)
    distance = std::fmax(distance, std::abs(static_cast<double>(its[i]) - static_cast<double>(own[i])));
  return distance;
}

}  // namespace

TEST_CASE("without a matrix library the kernels of ours do the work") {
  const ChosenFolder folder("/nonexistent");
  gpu::MatrixLibrary library(nullptr);
  CHECK(library.description() == "own kernels (no libcublasLt.so.13 or .12 found)");
  CHECK(distance_from_own(library, 20, 30, 40, 0, true) == 0);
}

TEST_CASE("the matrix library does the products that it takes") {
  const std::string place = kFakes + "/complete";
  FakeCublasLt& fake = fresh_fake(place);
  const ChosenFolder folder(place);
  {
    gpu::MatrixLibrary library(nullptr);
    CHECK(library.description() == "cuBLASLt 13.1.2");
    const auto is_marked = [&](std::size_t shift, bool biased) {
      const double distance = distance_from_own(library, 20, 30, 40, shift, biased);
      return distance > 4e-5 && distance < 6e-5;
    };
    SUBCASE("one search serves all products of a kind") {
      fake.searches = 0;
      for (int repetition = 0; repetition < 3; ++repetition) CHECK(is_marked(0, true));
      CHECK(fake.searches == 1);
      CHECK(is_marked(0, false));
      CHECK(fake.searches == 2);
    }
    SUBCASE("operands that lie less well aligned are another kind") {
      CHECK(is_marked(0, true));
      CHECK(is_marked(1, true));
    }
    SUBCASE("products of bfloat16") { check_narrow_product<gpu::bfloat16>(library); }
    SUBCASE("products of float16") { check_narrow_product<gpu::float16>(library); }
    SUBCASE("a product that fails to start is ours") {
      fake.multiply_status = 13;
      CHECK(distance_from_own(library, 20, 30, 40, 0, true) == 0);
    }
    SUBCASE("a product that no algorithm is found for is ours") {
      fake.refused_type = gpu::CublasLt::kF32;
      CHECK(distance_from_own(library, 20, 30, 41, 0, true) == 0);
    }
    SUBCASE("an empty inner dimension is ours") { CHECK(distance_from_own(library, 20, 30, 0, 0, true) == 0); }
  }
  CHECK(fake.objects == 0);
}

TEST_CASE("a matrix library that is not good enough is not used, and said why") {
  const std::string place = kFakes + "/complete";
  FakeCublasLt& fake = fresh_fake(place);
  const ChosenFolder folder(place);
  const auto description = [] { return gpu::MatrixLibrary(nullptr).description(); };
  SUBCASE("other versions") {
    fake.version = 110601;
    CHECK(description() == "own kernels (cuBLASLt 11.6.1 is not 12 or 13)");
    fake.version = 140000;
    CHECK(description() == "own kernels (cuBLASLt 14.0.0 is not 12 or 13)");
    fake.version = 120405;
    CHECK(description() == "cuBLASLt 12.4.5");
  }
  SUBCASE("one that does not start") {
    fake.create_status = 1;
    CHECK(description() == "own kernels (cuBLASLt 13.1.2 does not start: status 1)");
  }
  SUBCASE("wrong products") {
    fake.multiply = multiply_wrongly;
    CHECK(description() == "own kernels (cuBLASLt 13.1.2 gave wrong float32 products)");
    fake.multiply = multiply_type_wrongly<gpu::CublasLt::kBF16>;
    CHECK(description() == "own kernels (cuBLASLt 13.1.2 gave wrong bfloat16 products)");
    fake.multiply = multiply_type_wrongly<gpu::CublasLt::kF16>;
    CHECK(description() == "own kernels (cuBLASLt 13.1.2 gave wrong float16 products)");
  }
  SUBCASE("refused products") {
    fake.refused_type = gpu::CublasLt::kBF16;
    CHECK(description() == "own kernels (cuBLASLt 13.1.2 refused bfloat16 products)");
    fake.refused_type = gpu::CublasLt::kF16;
    CHECK(description() == "own kernels (cuBLASLt 13.1.2 refused float16 products)");
  }
  CHECK(fake.objects == 0);
}

TEST_CASE("a matrix library without one of the functions is not used") {
  const ChosenFolder folder(kFakes + "/incomplete");
  CHECK(gpu::MatrixLibrary(nullptr).description() == "own kernels (cuBLASLt has no cublasLtCreate)");
}

}  // namespace secateur::test

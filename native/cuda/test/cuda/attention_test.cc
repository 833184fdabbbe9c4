#include "cuda/kernels/attention.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "cuda/kernels/attention_narrow.h"
#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {
namespace {

struct Shape {
  std::size_t samples;
  std::size_t length;
  std::size_t heads;
  std::size_t key_heads;
  std::size_t size;
};

// Elements before the first move the inputs off their alignment.
template <class Element>
DeviceArray<Element> shifted(std::vector<Element> inputs, std::size_t shift, Element unread) {
  inputs.insert(inputs.begin(), shift, unread);
  return DeviceArray<Element>(inputs);
}

template <class Narrow>
std::vector<Narrow> narrowed(const std::vector<float>& values) {
  std::vector<Narrow> stored;
  for (const float value : values) stored.push_back(gpu::narrow<Narrow>(value));
  return stored;
}

// What the kernels make of the inputs, beside what the exact products of them are compared with.
struct FloatAttention {
  static constexpr double kTolerance = 2e-5;
  static float read(float value) { return value; }
  static std::vector<float> attend(const Shape& shape, const std::vector<float>& queries, const std::vector<float>& keys,
                                   const std::vector<float>& values, std::size_t shift, std::size_t window) {
    const float unread = std::nanf("");
    DeviceArray<float> device_queries = shifted(queries, shift, unread);
    DeviceArray<float> device_keys = shifted(keys, shift, unread);
    DeviceArray<float> device_values = shifted(values, shift, unread);
    DeviceArray<float> result(queries.size());
    REQUIRE(gpu::attend({shape.samples, shape.length, shape.heads, shape.key_heads, shape.size, device_queries.data() + shift,
                         device_keys.data() + shift, device_values.data() + shift, result.data(), window},
                        nullptr) == cudaSuccess);
    std::vector<float> read = result.read();
    CHECK(result.is_guarded());
    return read;
  }
};

template <class Narrow>
struct NarrowAttention {
  // Weights of values are rounded to eight bits, or eleven.
  static constexpr double kTolerance = std::is_same_v<Narrow, gpu::bfloat16> ? 4e-3 : 5e-4;
  static float read(float value) { return gpu::widen(gpu::narrow<Narrow>(value)); }
  static std::vector<float> attend(const Shape& shape, const std::vector<float>& queries, const std::vector<float>& keys,
                                   const std::vector<float>& values, std::size_t shift, std::size_t window) {
    const Narrow unread = gpu::narrow<Narrow>(std::nanf(""));
    DeviceArray<float> device_queries = shifted(queries, shift, std::nanf(""));
    DeviceArray<Narrow> device_keys = shifted(narrowed<Narrow>(keys), shift, unread);
    DeviceArray<Narrow> device_values = shifted(narrowed<Narrow>(values), shift, unread);
    DeviceArray<float> result(queries.size());
    REQUIRE(gpu::attend_narrow({shape.samples, shape.length, shape.heads, shape.key_heads, shape.size, device_queries.data() + shift,
                                device_keys.data() + shift, device_values.data() + shift, result.data(), window},
                               nullptr) == cudaSuccess);
    std::vector<float> read = result.read();
    CHECK(result.is_guarded());
    return read;
  }
};

using BF16Attention = NarrowAttention<gpu::bfloat16>;
using F16Attention = NarrowAttention<gpu::float16>;

template <class Attention>
void check_attention(std::size_t samples, std::size_t length, std::size_t heads, std::size_t key_heads, std::size_t size, float scale,
                     std::size_t shift = 0, std::size_t window = 0) {
  CAPTURE(length);
  CAPTURE(heads);
  CAPTURE(size);
  CAPTURE(window);
  const std::size_t tokens = samples * length;
  std::vector<float> queries = random_values(tokens * heads * size, 1);
  for (float& value : queries) value *= scale;
  std::vector<float> keys = random_values(tokens * key_heads * size, 2);
  std::vector<float> values = random_values(tokens * key_heads * size, 3);
  const std::vector<float> actual = Attention::attend({samples, length, heads, key_heads, size}, queries, keys, values, shift, window);
  for (std::vector<float>* const inputs : {&queries, &keys, &values}) std::ranges::transform(*inputs, inputs->begin(), Attention::read);
  // Rounding of a score grows with it, and the exponential turns its absolute error into a relative one of the weight.
  const double tolerance = Attention::kTolerance * std::max(1.0, static_cast<double>(scale) / 8);
  for (std::size_t sample = 0; sample < samples; ++sample) {
    for (std::size_t head = 0; head < heads; ++head) {
      const std::size_t key_head = head / (heads / key_heads);
      for (std::size_t query = 0; query < length; ++query) {
        const std::size_t token = sample * length + query;
        std::vector<double> scores(query + 1, -INFINITY);
        for (std::size_t key = window == 0 || query < window ? 0 : query + 1 - window; key <= query; ++key) {
          scores[key] = 0;
          for (std::size_t i = 0; i < size; ++i) {
            scores[key] += static_cast<double>(queries[(token * heads + head) * size + i]) *
                           static_cast<double>(keys[((sample * length + key) * key_heads + key_head) * size + i]) /
                           std::sqrt(static_cast<double>(size));
          }
        }
        const double maximum = *std::max_element(scores.begin(), scores.end());
        double sum = 0;
        for (double& score : scores) sum += score = std::exp(score - maximum);
        for (std::size_t i = 0; i < size; ++i) {
          double expected = 0;
          for (std::size_t key = 0; key <= query; ++key) {
            expected += scores[key] / sum * static_cast<double>(values[((sample * length + key) * key_heads + key_head) * size + i]);
          }
          REQUIRE(std::abs(static_cast<double>(actual[(token * heads + head) * size + i]) - expected) < tolerance);
        }
      }
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("attention agrees with float64 for all lengths and widths of heads", Attention, FloatAttention, BF16Attention,
                   F16Attention) {
  in_all_schedules([] {
    check_attention<Attention>(1, 1, 1, 1, 8, 1);
    check_attention<Attention>(2, 31, 4, 2, 32, 1);
    check_attention<Attention>(2, 33, 2, 1, 40, 8);
    check_attention<Attention>(1, 65, 2, 2, 80, 1);
    check_attention<Attention>(1, 100, 3, 1, 128, 3);
    // Scores of hundreds: exponentials overflow unless they are relative to the largest.
    check_attention<Attention>(1, 100, 1, 1, 64, 60);
    check_attention<Attention>(3, 130, 6, 3, 64, 1);
  });
  for (std::size_t size = 8; size <= gpu::kMaximumHeadDimension; size += 8) check_attention<Attention>(1, 40, 2, 1, size, 1);
  for (const std::size_t length : {32, 63, 64, 96, 97, 128, 129, 200, 257}) check_attention<Attention>(1, length, 1, 1, 16, 1);
}

TEST_CASE("attention of nothing is nothing, and of wider heads an error") {
  const auto check_all = [](std::size_t samples, std::size_t length, std::size_t size, cudaError_t expected) {
    CHECK(gpu::attend({samples, length, 1, 1, size, nullptr, nullptr, nullptr, nullptr}, nullptr) == expected);
    const auto attend_to = [&]<class Narrow>(const Narrow* keys) {
      CHECK(gpu::attend_narrow({samples, length, 1, 1, size, nullptr, keys, keys, nullptr}, nullptr) == expected);
    };
    attend_to(static_cast<const gpu::bfloat16*>(nullptr));
    attend_to(static_cast<const gpu::float16*>(nullptr));
  };
  check_all(1, 1, 129, cudaErrorInvalidValue);
  check_all(0, 1, 8, cudaSuccess);
  check_all(1, 0, 8, cudaSuccess);
}

TEST_CASE_TEMPLATE("attention sees the keys of its window only", Attention, FloatAttention, BF16Attention, F16Attention) {
  for (const std::size_t window : {1, 2, 31, 32, 33, 63, 64, 65, 129, 130, 500}) check_attention<Attention>(1, 130, 2, 1, 16, 2, 0, window);
}

TEST_CASE_TEMPLATE("attention reads rows that begin anywhere", Attention, FloatAttention, BF16Attention, F16Attention) {
  for (const std::size_t size : {1, 6, 7, 33, 64}) {
    for (const std::size_t shift : {0, 1, 2, 4}) check_attention<Attention>(2, 37, 2, 1, size, 1, shift);
  }
}

TEST_CASE_TEMPLATE("attention of a sample does not depend on the others", Attention, FloatAttention, BF16Attention, F16Attention) {
  constexpr std::size_t kLength = 70;
  constexpr std::size_t kSize = 24;
  std::vector<float> inputs = random_values(kLength * kSize, 5);
  const auto attended = [](const std::vector<float>& values, std::size_t samples) {
    return Attention::attend({samples, kLength, 1, 1, kSize}, values, values, values, 0, 0);
  };
  const std::vector<float> alone = attended(inputs, 1);
  const std::vector<float> other = random_values(kLength * kSize, 6);
  inputs.insert(inputs.begin(), other.begin(), other.end());
  const std::vector<float> together = attended(inputs, 2);
  CHECK(std::equal(alone.begin(), alone.end(), together.begin() + static_cast<std::ptrdiff_t>(other.size())));
}

}  // namespace secateur::test

#include "cuda/kernels/attention.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {
namespace {

void check_attention(std::size_t samples, std::size_t length, std::size_t heads, std::size_t key_heads, std::size_t size, float scale) {
  CAPTURE(length);
  CAPTURE(heads);
  CAPTURE(size);
  const std::size_t tokens = samples * length;
  std::vector<float> queries = random_values(tokens * heads * size, 1);
  for (float& value : queries) value *= scale;
  const std::vector<float> keys = random_values(tokens * key_heads * size, 2);
  const std::vector<float> values = random_values(tokens * key_heads * size, 3);
  DeviceArray<float> device_queries(queries);
  DeviceArray<float> device_keys(keys);
  DeviceArray<float> device_values(values);
  DeviceArray<float> result(queries.size());
  REQUIRE(
      gpu::attend({samples, length, heads, key_heads, size, device_queries.data(), device_keys.data(), device_values.data(), result.data()},
                  nullptr) == cudaSuccess);
  const std::vector<float> actual = result.read();
  CHECK(result.is_guarded());
  for (std::size_t sample = 0; sample < samples; ++sample) {
    for (std::size_t head = 0; head < heads; ++head) {
      const std::size_t key_head = head / (heads / key_heads);
      for (std::size_t query = 0; query < length; ++query) {
        const std::size_t token = sample * length + query;
        std::vector<double> scores(query + 1, 0.0);
        for (std::size_t key = 0; key <= query; ++key) {
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
          REQUIRE(std::abs(static_cast<double>(actual[(token * heads + head) * size + i]) - expected) < 2e-5);
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("attention agrees with float64 for all lengths and widths of heads") {
  in_all_schedules([] {
    check_attention(1, 1, 1, 1, 8, 1);
    check_attention(2, 31, 4, 2, 32, 1);
    check_attention(2, 33, 2, 1, 40, 8);
    check_attention(1, 65, 2, 2, 80, 1);
    check_attention(1, 100, 3, 1, 128, 3);
  });
  CHECK(gpu::attend({1, 1, 1, 1, 129, nullptr, nullptr, nullptr, nullptr}, nullptr) == cudaErrorInvalidValue);
}

}  // namespace secateur::test

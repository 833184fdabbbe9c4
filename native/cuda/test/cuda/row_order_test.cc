#include "cuda/kernels/row_order.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "cuda/kernels/mask.h"
#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {

namespace {

void check_order(std::size_t columns, bool scaled) {
  constexpr std::size_t kRows = 3;
  CAPTURE(columns);
  std::vector<float> weights = random_values(kRows * columns, 1);
  // Many ties, zeros of both signs, large and tiny values.
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (i % 3 == 0) weights[i] = std::round(weights[i] * 2) / 2;
    if (i % 7 == 0) weights[i] = -0.0F;
    if (i % 11 == 0) weights[i] *= 1e30F;
    if (i % 13 == 0) weights[i] *= 1e-40F;
  }
  std::vector<float> scales = random_values(columns, 2);
  for (float& scale : scales) scale = std::abs(scale);
  DeviceArray<float> device_weights(weights);
  DeviceArray<float> device_scales(scales);
  DeviceArray<std::uint32_t> keys(weights.size());
  DeviceArray<std::uint32_t> other_keys(weights.size());
  DeviceArray<std::uint32_t> other_orders(weights.size());
  DeviceArray<std::uint32_t> orders(weights.size());
  REQUIRE(gpu::order_rows({kRows, columns, device_weights.data(), scaled ? device_scales.data() : nullptr, keys.data(), other_keys.data(),
                           other_orders.data(), orders.data()},
                          nullptr) == cudaSuccess);
  const std::vector<std::uint32_t> actual = orders.read();
  CHECK(orders.is_guarded());
  const std::size_t row_bytes = (columns + 7) / 8;
  const std::vector<std::int32_t> counts = {0, static_cast<std::int32_t>(columns), static_cast<std::int32_t>(columns / 2)};
  DeviceArray<std::int32_t> device_counts(counts);
  DeviceArray<std::uint8_t> mask(kRows * row_bytes);
  REQUIRE(gpu::pack_mask(orders.data(), device_counts.data(), kRows, columns, mask.data(), nullptr) == cudaSuccess);
  const std::vector<std::uint8_t> bits = mask.read();
  CHECK(mask.is_guarded());
  REQUIRE(gpu::apply_mask(device_weights.data(), mask.data(), kRows, columns, nullptr) == cudaSuccess);
  const std::vector<float> masked = device_weights.read();
  for (std::size_t row = 0; row < kRows; ++row) {
    const auto score = [&](std::size_t column) {
      const float magnitude = std::fabs(weights[row * columns + column]);
      return scaled ? magnitude * scales[column] : magnitude;
    };
    std::vector<std::uint32_t> expected(columns);
    std::iota(expected.begin(), expected.end(), 0U);
    std::stable_sort(expected.begin(), expected.end(), [&](std::uint32_t a, std::uint32_t b) { return score(a) < score(b); });
    std::vector<bool> dropped(columns, false);
    for (std::size_t j = 0; j < columns; ++j) {
      REQUIRE(actual[row * columns + j] == expected[j]);
      if (j < static_cast<std::size_t>(counts[row])) dropped[expected[j]] = true;
    }
    for (std::size_t column = 0; column < columns; ++column) {
      REQUIRE(((bits[row * row_bytes + column / 8] >> (column % 8)) & 1) == (dropped[column] ? 1 : 0));
      const float value = masked[row * columns + column];
      if (dropped[column]) {
        REQUIRE((value == 0.0F && !std::signbit(value)));
      } else {
        REQUIRE(value == weights[row * columns + column]);
      }
    }
  }
}

}  // namespace

TEST_CASE("rows are ordered stably by score, and masks follow the order") {
  in_all_schedules([] {
    for (const std::size_t columns : {1U, 2U, 31U, 255U, 256U, 257U, 1000U}) {
      for (const bool scaled : {false, true}) check_order(columns, scaled);
    }
  });
}

TEST_CASE("rows of all lengths are ordered, in shared memory or out of it") {
  for (const std::size_t columns : {1024U, 1025U, 2048U, 2049U, 4096U, 4097U, 8192U, 8193U, 18944U, 18945U}) check_order(columns, true);
}

}  // namespace secateur::test

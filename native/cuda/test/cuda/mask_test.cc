#include "cuda/kernels/mask.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "device_array.h"
#include "schedules.h"

namespace secateur::test {

TEST_CASE("masks of rows longer than the bits a block holds, applied to weights of 16 bits") {
  in_all_schedules([] {
    for (const std::size_t columns : {8191U, 8192U, 8193U, 16390U}) {
      constexpr std::size_t kRows = 3;
      CAPTURE(columns);
      std::mt19937 random(5);
      std::vector<std::uint32_t> orders(kRows * columns);
      for (std::size_t row = 0; row < kRows; ++row) {
        const auto begin = orders.begin() + static_cast<std::ptrdiff_t>(row * columns);
        std::iota(begin, begin + static_cast<std::ptrdiff_t>(columns), 0U);
        std::shuffle(begin, begin + static_cast<std::ptrdiff_t>(columns), random);
      }
      const std::vector<std::int32_t> counts = {0, static_cast<std::int32_t>(columns / 3), static_cast<std::int32_t>(columns)};
      const std::size_t row_bytes = (columns + 7) / 8;
      std::vector<std::uint8_t> expected_mask(kRows * row_bytes, 0);
      std::vector<std::uint16_t> expected_weights(kRows * columns, 0xbf80);
      DeviceArray<std::uint16_t> weights(expected_weights);
      for (std::size_t row = 0; row < kRows; ++row) {
        for (std::size_t j = 0; j < static_cast<std::size_t>(counts[row]); ++j) {
          const std::size_t column = orders[row * columns + j];
          std::uint8_t& byte = expected_mask[row * row_bytes + column / 8];
          byte = static_cast<std::uint8_t>(byte | (1U << (column % 8)));
          expected_weights[row * columns + column] = 0;
        }
      }
      DeviceArray<std::uint32_t> device_orders(orders);
      DeviceArray<std::int32_t> device_counts(counts);
      DeviceArray<std::uint8_t> mask(expected_mask.size());
      REQUIRE(gpu::pack_mask(device_orders.data(), device_counts.data(), kRows, columns, mask.data(), nullptr) == cudaSuccess);
      REQUIRE(gpu::apply_mask(weights.data(), mask.data(), kRows, columns, nullptr) == cudaSuccess);
      CHECK(mask.read() == expected_mask);
      CHECK(mask.is_guarded());
      // Not told where they differ, which takes long.
      const bool equal = weights.read() == expected_weights;
      CHECK(equal);
      CHECK(weights.is_guarded());
    }
  });
}

TEST_CASE("copy_masked copies what the mask keeps, of all rows or of those that are marked") {
  in_all_schedules([] {
    constexpr std::size_t kRows = 3;
    constexpr std::size_t kColumns = 300;
    std::vector<float> weights(kRows * kColumns);
    std::iota(weights.begin(), weights.end(), 1.0F);
    const std::vector<std::uint8_t> mask(kRows * ((kColumns + 7) / 8), 0x12);
    const std::vector<std::uint8_t> marked = {1, 0, 1};
    DeviceArray<float> device_weights(weights);
    DeviceArray<std::uint8_t> device_mask(mask);
    DeviceArray<std::uint8_t> device_marked(marked);
    for (const bool all : {true, false}) {
      DeviceArray<float> values(std::vector<float>(weights.size(), -1));
      REQUIRE(gpu::copy_masked(device_weights.data(), device_mask.data(), all ? nullptr : device_marked.data(), kRows, kColumns,
                               values.data(), nullptr) == cudaSuccess);
      const std::vector<float> actual = values.read();
      CHECK(values.is_guarded());
      bool equal = true;
      for (std::size_t i = 0; i < actual.size(); ++i) {
        const bool dropped = (0x12U >> i % kColumns % 8 & 1U) != 0;
        const float expected = !all && marked[i / kColumns] == 0 ? -1 : dropped ? 0 : weights[i];
        equal = equal && actual[i] == expected;
      }
      CHECK(equal);
    }
  });
}

}  // namespace secateur::test

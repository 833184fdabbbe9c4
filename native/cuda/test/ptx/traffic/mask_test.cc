#include "cuda/kernels/mask.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/mask_rows.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

namespace {

constexpr std::size_t kRows = 3;

template <class Weight>
void check_apply_mask(std::size_t columns) {
  DeviceArray<Weight> weights(kRows * columns);
  DeviceArray<std::uint8_t> mask(alternating_mask(kRows, columns));
  TrafficModel model;
  for (std::size_t row = 0; row < kRows; ++row) {
    read_mask_row(model, row, columns);
    model.write_places<Weight>(columns, dropped_of_row(row, columns));
  }
  check_traffic(traffic_of([&] { return gpu::apply_mask(weights.data(), mask.data(), kRows, columns, nullptr); }), model);
}

}  // namespace

TEST_CASE("traffic of masks that are applied: the bits, and what is dropped") {
  for (const std::size_t columns : {512U, 333U}) {
    CAPTURE(columns);
    check_apply_mask<float>(columns);
    check_apply_mask<std::uint16_t>(columns);
  }
}

TEST_CASE("traffic of masked copies: of the rows that are marked the bits and what is kept, and every result") {
  for (const std::size_t columns : {512U, 333U}) {
    CAPTURE(columns);
    DeviceArray<float> weights(random_values(kRows * columns, 1));
    DeviceArray<std::uint8_t> mask(alternating_mask(kRows, columns));
    DeviceArray<std::uint8_t> marked(std::vector<std::uint8_t>{1, 0, 1});
    DeviceArray<float> values(kRows * columns);
    TrafficModel model;
    for (std::size_t row = 0; row < kRows; ++row) {
      model.read_same<std::uint8_t>(256);
      if (row == 1) continue;
      read_mask_row(model, row, columns);
      model.read_places<float>(columns, kept_of_row(row, columns)).write_run<float>(row * columns, columns);
    }
    const auto copy = [&] { return gpu::copy_masked(weights.data(), mask.data(), marked.data(), kRows, columns, values.data(), nullptr); };
    check_traffic(traffic_of(copy), model);
  }
}

TEST_CASE("traffic of masks that are packed: the part of an order that is dropped, once for each slice of 8192 columns") {
  for (const std::size_t columns : {512U, 333U, 8211U}) {
    CAPTURE(columns);
    // Dropped are neighbours, so that all lanes of a warp find their bits in a word of shared memory; of the last row whole rounds of the
    // block, for the lanes of an odd one would go through what is left in two parties.
    std::vector<std::uint32_t> orders;
    for (std::size_t i = 0; i < kRows * columns; ++i) orders.push_back(static_cast<std::uint32_t>(i % columns));
    const std::vector<std::int32_t> counts = {0, 100, static_cast<std::int32_t>(columns / 256 * 256)};
    DeviceArray<std::uint32_t> device_orders(orders);
    DeviceArray<std::int32_t> device_counts(counts);
    DeviceArray<std::uint8_t> mask(kRows * ((columns + 7) / 8));
    TrafficModel model;
    for (std::size_t row = 0; row < kRows; ++row) {
      model.read_same<std::int32_t>(256);
      for (std::size_t begin = 0; begin < columns; begin += 8192) {
        model.read_run<std::uint32_t>(row * columns, static_cast<std::size_t>(counts[row]));
        const std::size_t bytes = (std::min<std::size_t>(columns - begin, 8192) + 7) / 8;
        model.write_run<std::uint8_t>(row * ((columns + 7) / 8) + begin / 8, bytes);
      }
    }
    const auto pack = [&] { return gpu::pack_mask(device_orders.data(), device_counts.data(), kRows, columns, mask.data(), nullptr); };
    check_traffic(traffic_of(pack), model);
  }
}

}  // namespace secateur::test

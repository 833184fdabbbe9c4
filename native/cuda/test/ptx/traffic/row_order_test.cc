#include "cuda/kernels/row_order.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "device_array.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

namespace {

// All scores are the same, so that entries stay where they are: how far others are scattered, and how many banks that takes in turn, is up
// to the scores.
ptx::Traffic traffic_of_order(std::size_t rows, std::size_t columns) {
  DeviceArray<float> weights(std::vector<float>(rows * columns, 1.0F));
  DeviceArray<float> scales(std::vector<float>(columns, 2.0F));
  DeviceArray<std::uint32_t> keys(rows * columns);
  DeviceArray<std::uint32_t> other_keys(rows * columns);
  DeviceArray<std::uint32_t> other_orders(rows * columns);
  DeviceArray<std::uint32_t> orders(rows * columns);
  const gpu::RowOrderTask task{rows,        columns,           weights.data(),      scales.data(),
                               keys.data(), other_keys.data(), other_orders.data(), orders.data()};
  return traffic_of([&] { return gpu::order_rows(task, nullptr); });
}

}  // namespace

TEST_CASE("traffic of row order in shared memory: weights and scales in, columns out") {
  for (const std::size_t columns : {1000U, 2048U, 4001U, 8190U, 18944U}) {
    CAPTURE(columns);
    const std::size_t rows = columns < 2000 ? 2 : 1;
    TrafficModel model;
    for (std::size_t row = 0; row < rows; ++row) {
      model.read_run<float>(row * columns, columns).read_run<float>(0, columns).write_run<std::uint32_t>(row * columns, columns);
    }
    check_traffic(traffic_of_order(rows, columns), model);
  }
}

TEST_CASE("traffic of row order in global memory: in each of four passes keys twice and columns once in, and both out") {
  // The first row that does not fit in shared memory and is shared out to whole warps.
  constexpr std::size_t kColumns = 18944 + 32;
  TrafficModel model;
  model.read_run<float>(0, kColumns).read_run<float>(0, kColumns);
  model.write_run<std::uint32_t>(0, kColumns).write_run<std::uint32_t>(0, kColumns);
  for (int pass = 0; pass < 4; ++pass) {
    for (int array = 0; array < 3; ++array) model.read_run<std::uint32_t>(0, kColumns);
    for (int array = 0; array < 2; ++array) model.write_run<std::uint32_t>(0, kColumns);
  }
  check_traffic(traffic_of_order(1, kColumns), model);
}

}  // namespace secateur::test

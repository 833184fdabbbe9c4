#include "cuda/kernels/admm.h"

#include <doctest/doctest.h>

#include <cstdint>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/mask_rows.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of ADMM: every matrix once, and of those only what a mask asks for") {
  constexpr std::size_t kRows = 3;
  for (const std::size_t columns : {512U, 333U}) {
    CAPTURE(columns);
    DeviceArray<float> weights(random_values(kRows * columns, 1));
    DeviceArray<float> products(random_values(kRows * columns, 2));
    DeviceArray<float> norms(random_values(columns, 3));
    DeviceArray<std::uint8_t> mask(alternating_mask(kRows, columns));
    DeviceArray<float> sums(kRows * columns);
    DeviceArray<float> targets(kRows * columns);
    DeviceArray<float> drawn(kRows * columns);
    TrafficModel start;
    TrafficModel draw;
    TrafficModel move;
    TrafficModel finish;
    for (std::size_t row = 0; row < kRows; ++row) {
      const std::size_t first = row * columns;
      start.read_run<float>(first, columns).read_run<float>(first, columns).read_run<float>(0, columns);
      start.write_run<float>(first, columns).write_run<float>(first, columns);
      read_mask_row(draw, row, columns).read_run<float>(first, columns).read_run<float>(first, columns).write_run<float>(first, columns);
      // The multiplier is where a weight is dropped; a weight that is kept starts anew.
      read_mask_row(move, row, columns).read_places<float>(columns, dropped_of_row(row, columns));
      move.read_run<float>(first, columns).write_run<float>(first, columns);
      const auto norm = [](std::size_t column) { return column % 2 == 0 ? TrafficModel::kNowhere : column; };
      read_mask_row(finish, row, columns).read_places<float>(columns, kept_of_row(row, columns)).read_places<float>(columns, norm);
      finish.write_run<float>(first, columns);
    }
    const gpu::AdmmStart begin{kRows, columns, weights.data(), products.data(), norms.data(), 0.1F, sums.data(), targets.data()};
    const gpu::AdmmSums task{kRows, columns, mask.data(), sums.data()};
    check_traffic(traffic_of([&] { return gpu::start_admm(begin, nullptr); }), start);
    check_traffic(traffic_of([&] { return gpu::draw_admm(task, targets.data(), 1.5F, drawn.data(), nullptr); }), draw);
    check_traffic(traffic_of([&] { return gpu::move_admm(task, drawn.data(), nullptr); }), move);
    check_traffic(traffic_of([&] { return gpu::finish_admm(task, norms.data(), nullptr); }), finish);
  }
}

}  // namespace secateur::test

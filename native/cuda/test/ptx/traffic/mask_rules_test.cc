#include "cuda/kernels/mask_rules.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/mask_rows.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of patterns: every lane looks at its own score and at those of its group") {
  // What neighbours look at lies in the same sectors, which the first of them brings near; shuffles could hand it round instead.
  constexpr std::size_t kRows = 3;
  for (const std::size_t columns : {512U, 332U}) {
    for (const std::size_t group : {4U, 2U}) {
      CAPTURE(columns);
      CAPTURE(group);
      const std::size_t row_bytes = (columns + 7) / 8;
      DeviceArray<float> weights(random_values(kRows * columns, 1));
      DeviceArray<float> scales(std::vector<float>(columns, 2.0F));
      DeviceArray<std::uint8_t> mask(kRows * row_bytes);
      TrafficModel model;
      for (std::size_t row = 0; row < kRows; ++row) {
        model.read_run<float>(row * columns, columns).read_run<float>(0, columns);
        for (std::size_t member = 0; member < group; ++member) {
          const auto other = [=](std::size_t column) { return column / group * group + member; };
          model.read_places<float>(columns, [=](std::size_t column) { return row * columns + other(column); });
          model.read_places<float>(columns, other);
        }
        write_mask_row(model, row * row_bytes, row_bytes);
      }
      const gpu::PatternTask task{kRows, columns, group / 2, group, weights.data(), scales.data(), mask.data()};
      check_traffic(traffic_of([&] { return gpu::mark_pattern(task, nullptr); }), model);
    }
  }
}

TEST_CASE("traffic of outputs that are compared: both once, and three sums of each row") {
  constexpr std::size_t kRows = 11;
  for (const std::size_t samples : {128U, 77U}) {
    CAPTURE(samples);
    DeviceArray<float> dense(random_values(kRows * samples, 1));
    DeviceArray<float> pruned(random_values(kRows * samples, 2));
    DeviceArray<allocation::OutputProducts> products(kRows);
    TrafficModel model;
    for (std::size_t row = 0; row < kRows; ++row) {
      model.read_run<float>(row * samples, samples).read_run<float>(row * samples, samples);
      for (int sum = 0; sum < 3; ++sum) model.write_one<double>();
    }
    const auto compare = [&] { return gpu::compare_outputs(dense.data(), pruned.data(), kRows, samples, products.data(), nullptr); };
    check_traffic(traffic_of(compare), model);
  }
}

}  // namespace secateur::test

#include "cuda/kernels/row_dots.h"

#include <doctest/doctest.h>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of products of rows: both once, and a sum of each") {
  constexpr std::size_t kRows = 3;
  for (const std::size_t columns : {512U, 333U}) {
    CAPTURE(columns);
    DeviceArray<float> left(random_values(kRows * columns, 1));
    DeviceArray<float> right(random_values(kRows * columns, 2));
    DeviceArray<double> dots(kRows);
    TrafficModel model;
    for (std::size_t row = 0; row < kRows; ++row) {
      model.read_run<float>(row * columns, columns).read_run<float>(row * columns, columns).write_one<double>();
    }
    check_traffic(traffic_of([&] { return gpu::row_dots(left.data(), right.data(), kRows, columns, dots.data(), nullptr); }), model);
  }
}

}  // namespace secateur::test

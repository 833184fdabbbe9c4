#include "cuda/kernels/squared_distance.h"

#include <doctest/doctest.h>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of squared distances: both vectors once, and a sum of each part") {
  for (const std::size_t size : {std::size_t{512}, gpu::kDistancePart + 77}) {
    CAPTURE(size);
    DeviceArray<float> x(random_values(size, 1));
    DeviceArray<float> y(random_values(size, 2));
    DeviceArray<double> sums(gpu::distance_parts(size));
    TrafficModel model;
    for (std::size_t part = 0; part < gpu::distance_parts(size); ++part) model.write_one<double>();
    model.read_run<float>(0, size);
    check_traffic(traffic_of([&] { return gpu::squared_distance(x.data(), nullptr, size, sums.data(), nullptr); }), model);
    model.read_run<float>(0, size);
    check_traffic(traffic_of([&] { return gpu::squared_distance(x.data(), y.data(), size, sums.data(), nullptr); }), model);
  }
}

}  // namespace secateur::test

#include "cuda/kernels/damp_gram_matrix.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of damping: the diagonal twice in and once out, and what is dead") {
  // A value of the diagonal has a sector to itself: there is no other way to it.
  for (const std::size_t columns : {64U, 77U}) {
    CAPTURE(columns);
    std::vector<double> values(columns * columns, 1.0);
    values[0] = 0;
    DeviceArray<double> gram(values);
    DeviceArray<std::uint8_t> dead(columns);
    const auto diagonal = [=](std::size_t column) { return column * columns + column; };
    TrafficModel model;
    model.read_places<double>(columns, diagonal).write_run<std::uint8_t>(0, columns).write_one<double>();
    model.read_places<double>(columns, diagonal).write_places<double>(columns, diagonal);
    check_traffic(traffic_of([&] { return gpu::damp_gram_matrix(gram.data(), columns, 1.0F, 0.01, dead.data(), nullptr); }), model);
  }
}

}  // namespace secateur::test

#include "cuda/kernels/gram_inverse.h"

#include <doctest/doctest.h>

#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of what becomes an inverse: the Gram matrix and its norms in, float64 out") {
  constexpr std::size_t kThreads = 256;
  for (const std::size_t columns : {64U, 333U}) {
    CAPTURE(columns);
    DeviceArray<float> gram(random_values(columns * columns, 1));
    DeviceArray<float> norms(std::vector<float>(columns, 2.0F));
    DeviceArray<double> result(columns * columns);
    TrafficModel model;
    for (std::size_t row = 0; row < columns; ++row) {
      model.read_run<float>(row * columns, columns).read_run<float>(0, columns).write_run<double>(row * columns, columns);
      model.read_same<float>(kThreads);
    }
    const gpu::WidenGramTask task{columns, gram.data(), norms.data(), 0.1F, result.data()};
    check_traffic(traffic_of([&] { return gpu::widen_gram(task, nullptr); }), model);
  }
}

TEST_CASE("traffic of transposition: whole runs of 32 on both sides, through shared memory without conflicts") {
  for (const std::size_t columns : {64U, 77U}) {
    CAPTURE(columns);
    DeviceArray<float> matrix(random_values(columns * columns, 1));
    DeviceArray<double> factor(std::vector<double>(columns * columns, 1.0));
    DeviceArray<float> result(columns * columns);
    TrafficModel whole;
    TrafficModel upper;
    for (std::size_t row = 0; row < columns; ++row) {
      whole.read_run<float>(row * columns, columns).write_run<float>(row * columns, columns);
      const auto above = [&](std::size_t column) { return row <= column ? row * columns + column : TrafficModel::kNowhere; };
      upper.read_places<double>(columns, above).write_run<float>(row * columns, columns);
    }
    check_traffic(traffic_of([&] { return gpu::transpose(matrix.data(), columns, result.data(), nullptr); }), whole);
    check_traffic(traffic_of([&] { return gpu::transpose_factor(factor.data(), columns, result.data(), nullptr); }), upper);
  }
}

}  // namespace secateur::test

#include "cuda/kernels/score_ranks.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

namespace {

constexpr std::size_t kRows = 3;

}  // namespace

TEST_CASE("traffic of scores: the weights and their scales once for each question") {
  for (const std::size_t columns : {512U, 333U}) {
    CAPTURE(columns);
    DeviceArray<float> weights(random_values(kRows * columns, 1));
    DeviceArray<float> scales(random_values(columns, 2));
    const gpu::ScoredWeights scored{kRows, columns, weights.data(), scales.data()};
    TrafficModel scores;
    for (std::size_t row = 0; row < kRows; ++row) scores.read_run<float>(row * columns, columns).read_run<float>(0, columns);

    DeviceArray<double> sums(kRows);
    TrafficModel summed = scores;
    for (std::size_t row = 0; row < kRows; ++row) summed.write_one<double>();
    check_traffic(traffic_of([&] { return gpu::sum_scores(scored, sums.data(), nullptr); }), summed);

    DeviceArray<std::uint32_t> counts(kRows);
    TrafficModel counted = scores;
    for (std::size_t row = 0; row < kRows; ++row) counted.write_one<std::uint32_t>();
    check_traffic(traffic_of([&] { return gpu::count_keys(scored, 0, 0xffffffffU, counts.data(), nullptr); }), counted);
  }
}

}  // namespace secateur::test

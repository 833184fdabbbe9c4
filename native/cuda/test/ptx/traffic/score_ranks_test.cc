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
constexpr std::size_t kThreads = 256;

}  // namespace

TEST_CASE("traffic of scores: the weights and their scales once for each question") {
  for (const std::size_t columns : {512U, 333U}) {
    CAPTURE(columns);
    // One score for all: its digits are counted in one place, which no two banks share. What the hardware does to updates of the same word,
    // one after the other, is not counted.
    DeviceArray<float> weights(std::vector<float>(kRows * columns, 1.0F));
    DeviceArray<float> scales(std::vector<float>(columns, 1.0F));
    const gpu::ScoredWeights scored{kRows, columns, weights.data(), scales.data()};
    TrafficModel scores;
    for (std::size_t row = 0; row < kRows; ++row) scores.read_run<float>(row * columns, columns).read_run<float>(0, columns);

    DeviceArray<double> sums(kRows);
    TrafficModel summed = scores;
    for (std::size_t row = 0; row < kRows; ++row) summed.write_one<double>();
    check_traffic(traffic_of([&] { return gpu::sum_scores(scored, sums.data(), nullptr); }), summed);

    DeviceArray<std::uint32_t> counts(gpu::kDigitParts * gpu::kScoreDigits);
    TrafficModel counted = scores;
    for (std::size_t row = 0; row < kRows; ++row) counted.write_one<std::uint32_t>();
    check_traffic(traffic_of([&] { return gpu::count_keys(scored, 0, 0xffffffffU, counts.data(), nullptr); }), counted);

    TrafficModel digits = scores;
    digits.write_run<std::uint32_t>(0, counts.size());
    check_traffic(traffic_of([&] { return gpu::count_digits(scored, 24, 0, counts.data(), nullptr); }), digits);

    DeviceArray<std::uint32_t> equal(std::vector<std::uint32_t>(kRows, 100));
    DeviceArray<float> rest(kRows * columns);
    TrafficModel dropped = scores;
    for (std::size_t row = 0; row < kRows; ++row) dropped.read_same<std::uint32_t>(kThreads).write_run<float>(row * columns, columns);
    check_traffic(traffic_of([&] { return gpu::drop_lowest(scored, 0x3f800000U, equal.data(), rest.data(), nullptr); }), dropped);
  }
}

}  // namespace secateur::test

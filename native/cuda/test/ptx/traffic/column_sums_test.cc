#include "cuda/kernels/column_sums.h"

#include <doctest/doctest.h>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of sums of squares of columns: every input once") {
  constexpr std::size_t kSamples = 2;
  constexpr std::size_t kTokens = 5;
  for (const std::size_t columns : {512U, 77U}) {
    CAPTURE(columns);
    DeviceArray<float> inputs(random_values(kSamples * kTokens * columns, 1));
    DeviceArray<double> sums(kSamples * columns);
    TrafficModel model;
    for (std::size_t row = 0; row < kSamples * kTokens; ++row) model.read_run<float>(row * columns, columns);
    for (std::size_t sample = 0; sample < kSamples; ++sample) model.write_run<double>(sample * columns, columns);
    const auto add = [&] { return gpu::column_sums_of_squares({kSamples, kTokens, columns, inputs.data(), sums.data()}, nullptr); };
    check_traffic(traffic_of(add), model);
  }
}

}  // namespace secateur::test

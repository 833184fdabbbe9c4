#include "cuda/kernels/drift.h"

#include <doctest/doctest.h>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of drift: the values once, and their part of a row of drift") {
  constexpr std::size_t kTokens = 3;
  for (const std::size_t width : {512U, 333U}) {
    CAPTURE(width);
    const std::size_t drift_width = width + 19;
    constexpr std::size_t kFirst = 11;
    DeviceArray<float> values(random_values(kTokens * width, 1));
    DeviceArray<float> drift(kTokens * drift_width);
    TrafficModel begin;
    TrafficModel finish;
    for (std::size_t token = 0; token < kTokens; ++token) {
      const std::size_t place = token * drift_width + kFirst;
      begin.read_run<float>(token * width, width).write_run<float>(place, width);
      finish.read_run<float>(token * width, width).read_run<float>(place, width).write_run<float>(place, width);
    }
    const gpu::DriftTask task{kTokens, values.data(), width, drift.data(), drift_width, kFirst};
    check_traffic(traffic_of([&] { return gpu::begin_drift(task, nullptr); }), begin);
    check_traffic(traffic_of([&] { return gpu::finish_drift(task, nullptr); }), finish);
  }
}

}  // namespace secateur::test

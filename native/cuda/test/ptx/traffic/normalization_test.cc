#include "cuda/kernels/normalization.h"

#include <doctest/doctest.h>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

namespace {

constexpr std::size_t kTokens = 6;

// Every pass takes the row once; the last one also the weight, and the bias where there is one.
TrafficModel model_of(std::size_t size, std::size_t passes, std::size_t vectors) {
  TrafficModel model;
  for (std::size_t token = 0; token < kTokens; ++token) {
    for (std::size_t pass = 0; pass < passes; ++pass) model.read_run<float>(token * size, size);
    for (std::size_t vector = 0; vector < vectors; ++vector) model.read_run<float>(0, size);
    model.write_run<float>(token * size, size);
  }
  return model;
}

}  // namespace

TEST_CASE("traffic of normalization: a row once for each pass over it") {
  for (const std::size_t size : {512U, 333U}) {
    CAPTURE(size);
    DeviceArray<float> x(random_values(kTokens * size, 1));
    DeviceArray<float> weight(random_values(size, 2));
    DeviceArray<float> y(kTokens * size);
    const gpu::NormalizationTask task{kTokens, size, 1e-5, x.data(), weight.data(), weight.data(), y.data()};
    // Sum of squares; result.
    check_traffic(traffic_of([&] { return gpu::rms_norm(task, nullptr); }), model_of(size, 2, 1));
    // Mean; deviation; result.
    check_traffic(traffic_of([&] { return gpu::layer_norm(task, nullptr); }), model_of(size, 3, 2));
  }
}

}  // namespace secateur::test

#include "cuda/kernels/rotary.h"

#include <doctest/doctest.h>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of rotary positions: every pair once, with its cosine and its sine") {
  constexpr std::size_t kLength = 3;
  constexpr std::size_t kTokens = 2 * kLength;
  constexpr std::size_t kHeads = 3;
  for (const std::size_t width : {128U, 20U}) {
    CAPTURE(width);
    const std::size_t half = width / 2;
    DeviceArray<float> angles(random_values(kLength * half, 1));
    DeviceArray<float> states(random_values(kTokens * kHeads * width, 2));
    TrafficModel model;
    for (std::size_t token = 0; token < kTokens; ++token) {
      const auto angle = [&](std::size_t i) { return token % kLength * half + i % half; };
      const auto first = [&](std::size_t i) { return (token * kHeads + i / half) * width + i % half; };
      const auto second = [&](std::size_t i) { return first(i) + half; };
      model.read_places<float>(kHeads * half, angle).read_places<float>(kHeads * half, angle);
      model.read_places<float>(kHeads * half, first).read_places<float>(kHeads * half, second);
      model.write_places<float>(kHeads * half, first).write_places<float>(kHeads * half, second);
    }
    const gpu::RotaryTask task{kTokens, kLength, kHeads, width, angles.data(), angles.data(), states.data()};
    check_traffic(traffic_of([&] { return gpu::rotate(task, nullptr); }), model);
  }
}

}  // namespace secateur::test

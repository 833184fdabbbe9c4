#include "cuda/kernels/attention.h"

#include <doctest/doctest.h>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of attention: queries once, keys and values once for each head that shares them") {
  constexpr std::size_t kHeads = 2;
  constexpr std::size_t kLength = 64;
  for (const std::size_t width : {32U, 64U, 96U, 128U}) {
    CAPTURE(width);
    DeviceArray<float> queries(random_values(kLength * kHeads * width, 1));
    DeviceArray<float> keys(random_values(kLength * width, 2));
    DeviceArray<float> result(kLength * kHeads * width);
    const auto attend = [&] {
      return gpu::attend({1, kLength, kHeads, 1, width, queries.data(), keys.data(), keys.data(), result.data()}, nullptr);
    };
    const std::size_t bytes = kLength * kHeads * width * sizeof(float);
    check_whole_sectors(traffic_of(attend), 3 * bytes, bytes);
  }
}

}  // namespace secateur::test

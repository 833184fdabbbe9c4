#include "cuda/kernels/attention_bf16.h"

#include <doctest/doctest.h>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/narrow_values.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of attention on tensor cores: every block reads its queries and, of keys and values, those before its last query") {
  constexpr std::size_t kHeads = 2;
  constexpr std::size_t kLength = 128;
  for (const std::size_t width : {32U, 64U, 96U, 128U}) {
    CAPTURE(width);
    DeviceArray<float> queries(random_values(kLength * kHeads * width, 1));
    DeviceArray<gpu::bfloat16> keys(narrow_values(kLength * width, 2));
    DeviceArray<float> result(kLength * kHeads * width);
    const auto attend = [&] {
      return gpu::attend_bf16({1, kLength, kHeads, 1, width, queries.data(), keys.data(), keys.data(), result.data()}, nullptr);
    };
    const std::size_t values = kLength * kHeads * width;
    check_whole_sectors(traffic_of(attend), values * sizeof(float) + 2 * values * sizeof(gpu::bfloat16), values * sizeof(float));
  }
}

}  // namespace secateur::test

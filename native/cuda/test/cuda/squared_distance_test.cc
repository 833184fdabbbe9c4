#include "cuda/kernels/squared_distance.h"

#include <doctest/doctest.h>

#include <numeric>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "schedules.h"

namespace secateur::test {
namespace {

void check_distance(std::size_t size, bool from_zeros) {
  CAPTURE(size);
  CAPTURE(from_zeros);
  const std::vector<float> values = random_values(size, 1);
  const std::vector<float> others = random_values(size, 2);
  DeviceArray<float> x(values);
  DeviceArray<float> y(others);
  DeviceArray<double> sums(gpu::distance_parts(size));
  REQUIRE(gpu::squared_distance(x.data(), from_zeros ? nullptr : y.data(), size, sums.data(), nullptr) == cudaSuccess);
  double expected = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const double difference = static_cast<double>(values[i]) - (from_zeros ? 0.0 : static_cast<double>(others[i]));
    expected += difference * difference;
  }
  const std::vector<double> parts = sums.read();
  CHECK(std::accumulate(parts.begin(), parts.end(), 0.0) == doctest::Approx(expected).epsilon(1e-13));
  CHECK(sums.is_guarded());
}

}  // namespace

TEST_CASE("squared_distance") {
  in_all_schedules([] {
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{255}, std::size_t{257}, std::size_t{3000}}) {
      check_distance(size, false);
      check_distance(size, true);
    }
  });
}

TEST_CASE("squared_distance of more values than a part has") { check_distance(gpu::kDistancePart + 3, false); }

}  // namespace secateur::test

#include "cuda/kernels/product_sums.h"

#include <doctest/doctest.h>

#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of a Gram matrix: strips of every tile, and the sums in and out") {
  constexpr std::size_t kColumns = 128;
  constexpr std::size_t kRows = 96;
  constexpr std::size_t kTile = 64;
  const ProductShape shape = gram_shape(kColumns);
  DeviceArray<float> inputs(random_values(kRows * kColumns, 1));
  DeviceArray<double> sums(std::vector<double>(product_values(shape)));
  const ptx::Traffic traffic = traffic_of([&] {
    return gpu::add_product_sums({kRows, shape, inputs.data(), inputs.data(), sums.data()}, nullptr);
  });
  // Four tiles with two strips each.
  CHECK(traffic.global().read_bytes == 4 * 2 * kRows * kTile * sizeof(float) + sums.size() * sizeof(double));
  CHECK(traffic.global().written_bytes == sums.size() * sizeof(double));
  CHECK(traffic.bank_conflicts() == 0);
}

}  // namespace secateur::test

#include "cuda/kernels/matrix_product_narrow.h"

#include <doctest/doctest.h>

#include "device_array.h"
#include "traffic/count_traffic.h"
#include "traffic/narrow_values.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

namespace {

// Every tile's block reads the rows of both operands that it needs, in strips, and writes its sums.
template <class Narrow>
void check_product(std::size_t m, std::size_t n, std::size_t inner, std::size_t tile) {
  CAPTURE(tile);
  DeviceArray<Narrow> left(narrow_values<Narrow>(m * inner, 1));
  DeviceArray<Narrow> right(narrow_values<Narrow>(n * inner, 2));
  DeviceArray<float> result(m * n);
  const gpu::MatrixProductNarrow task{m, n, inner, left.data(), right.data(), nullptr, result.data()};
  const std::size_t row_tiles = (m + tile - 1) / tile;
  const std::size_t column_tiles = (n + tile - 1) / tile;
  const std::size_t read_values = (m * column_tiles + n * row_tiles) * inner;
  check_whole_sectors(traffic_of([&] { return gpu::matrix_product_narrow(task, nullptr); }), read_values * sizeof(Narrow),
                      m * n * sizeof(float));
}

}  // namespace

TEST_CASE_TEMPLATE("traffic of matrix products on tensor cores: a tile's rows of both operands, through shared memory without conflicts",
                   Narrow, gpu::bfloat16, gpu::float16) {
  check_product<Narrow>(256, 128, 96, 64);
  // Enough large tiles for a device, all of them narrower than they could be.
  check_product<Narrow>(128 * 128, 8, 32, 128);
}

}  // namespace secateur::test

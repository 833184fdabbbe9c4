// What bench/gpu times on a GPU runs, at shapes small enough for here.
#include <doctest/doctest.h>

#include "bench/gpu/operations.h"
#include "device_array.h"

namespace secateur::test {

TEST_CASE("every operation that is timed on a GPU can be started") {
  // Their kernels are checked for races one by one.
  if (cuda_on_host::kRaceCheck) return;
  const bench::Operations operations(bench::kTiny, true);
  for (const bench::Operation& operation : operations.all()) {
    CAPTURE(operation.name);
    CHECK(operation.bytes > 0);
    REQUIRE(operation.start(nullptr) == cudaSuccess);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  }
}

TEST_CASE("figures of operations need no device") {
  const bench::Operations operations(bench::kQwen7B, false);
  CHECK(operations.all().size() > 20);
  for (const bench::Operation& operation : operations.all()) CHECK(operation.bytes > 0);
}

}  // namespace secateur::test

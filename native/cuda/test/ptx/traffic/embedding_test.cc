#include "cuda/kernels/embedding.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "cuda/tensor_core.h"
#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

namespace {

constexpr std::size_t kThreads = 128;

template <class Stored>
void check_embedding(gpu::StoredType type, std::size_t size) {
  constexpr std::size_t kLength = 2;
  const std::vector<std::int32_t> ids = {4, 1, 0, 4};
  DeviceArray<std::int32_t> device_ids(ids);
  DeviceArray<Stored> table(5 * size);
  DeviceArray<float> positions(random_values(kLength * size, 1));
  DeviceArray<float> states(ids.size() * size);
  TrafficModel model;
  for (std::size_t token = 0; token < ids.size(); ++token) {
    model.read_same<std::int32_t>(kThreads).read_run<Stored>(static_cast<std::size_t>(ids[token]) * size, size);
    model.read_run<float>(token % kLength * size, size).write_run<float>(token * size, size);
  }
  const gpu::EmbeddingTask task{ids.size(), kLength, size, device_ids.data(), table.data(), type, positions.data(), states.data()};
  check_traffic(traffic_of([&] { return gpu::embed(task, nullptr); }), model);
}

}  // namespace

TEST_CASE("traffic of embedding: of every token its row of the table and that of its position") {
  for (const std::size_t size : {256U, 77U}) {
    CAPTURE(size);
    check_embedding<float>(gpu::StoredType::kF32, size);
    check_embedding<gpu::float16>(gpu::StoredType::kF16, size);
    check_embedding<gpu::bfloat16>(gpu::StoredType::kBF16, size);
  }
}

}  // namespace secateur::test

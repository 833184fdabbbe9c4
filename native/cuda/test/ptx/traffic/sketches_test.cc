#include "cuda/kernels/sketches.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of sketches: every input once, and for every 32 of them a word of signs for each sketch") {
  constexpr std::size_t kSamples = 2;
  constexpr std::size_t kBlockColumns = 32;
  constexpr std::size_t kHalfWordTokens = 32;
  struct Shape {
    std::size_t tokens;
    std::size_t columns;
    std::size_t sketches;
  };
  for (const Shape& shape : {Shape{512, 64, 8}, Shape{300, 77, 3}}) {
    CAPTURE(shape.tokens);
    DeviceArray<float> inputs(random_values(kSamples * shape.tokens * shape.columns, 1));
    DeviceArray<std::uint64_t> signs(kSamples * shape.sketches * ((shape.tokens + 63) / 64));
    DeviceArray<float> sketches(kSamples * shape.sketches * shape.columns);
    TrafficModel model;
    for (std::size_t sample = 0; sample < kSamples; ++sample) {
      for (std::size_t token = 0; token < shape.tokens; ++token) {
        model.read_run<float>((sample * shape.tokens + token) * shape.columns, shape.columns);
        if (token % kHalfWordTokens != 0) continue;
        for (std::size_t column = 0; column < shape.columns; column += kBlockColumns) {
          const std::size_t lanes = std::min(kBlockColumns, shape.columns - column);
          for (std::size_t sketch = 0; sketch < shape.sketches; ++sketch) model.read_same<std::uint64_t>(lanes);
        }
      }
      for (std::size_t sketch = 0; sketch < shape.sketches; ++sketch) {
        model.write_run<float>((sample * shape.sketches + sketch) * shape.columns, shape.columns);
      }
    }
    const gpu::SketchTask task{kSamples, shape.tokens, shape.columns, shape.sketches, 0.125, inputs.data(), signs.data(), sketches.data()};
    check_traffic(traffic_of([&] { return gpu::sketch_inputs(task, nullptr); }), model);
  }
}

}  // namespace secateur::test

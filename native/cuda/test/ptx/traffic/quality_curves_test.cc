#include "cuda/kernels/quality_curves.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

namespace {

constexpr std::size_t kLanes = 32;

// Weights whose inputs a warp fetches before it adds up, with so many samples in a lane.
std::size_t steps_of_batch(std::size_t samples_per_lane) { return samples_per_lane <= 8 ? 16 : samples_per_lane <= 16 ? 8 : 2; }

struct Shape {
  std::size_t rows;
  std::size_t columns;
  std::size_t samples;
};

// A row of samples [.., samples] from `first` on, of which a lane takes every 32nd.
void read_samples(TrafficModel& model, const Shape& shape, std::size_t row, std::size_t first, std::size_t count) {
  model.read_run<float>(row * shape.samples + first, count);
}

// The sweep of a row over one panel of samples, from both ends of its order, which is that of the columns.
void sweep(TrafficModel& model, const Shape& shape, std::size_t row, std::size_t first_sample, bool panels) {
  const std::size_t left = shape.samples - first_sample;
  std::size_t samples_per_lane = 1;
  while (samples_per_lane * kLanes < left && samples_per_lane < 32) samples_per_lane *= 2;
  if (panels) samples_per_lane = 32;
  const std::size_t samples = std::min(left, samples_per_lane * kLanes);
  const std::size_t batch = steps_of_batch(samples_per_lane);
  const std::size_t first_point = row * (shape.columns + 1);
  read_samples(model, shape, row, first_sample, samples);
  if (panels && first_sample > 0) model.read_same<double>(1);
  model.write_one<double>();
  // The points of no and of all weights.
  if (!panels) model.write_one<gpu::CurvePoint>().write_one<gpu::CurvePoint>();
  for (const bool kept : {false, true}) {
    const std::size_t steps = kept ? shape.columns - shape.columns / 2 - 1 : shape.columns / 2;
    for (std::size_t first_step = 0; first_step < steps; first_step += batch) {
      // Lanes fetch a step each, as often as there are lanes for it.
      const auto place = [&](std::size_t lane) {
        const std::size_t step = first_step + lane % batch;
        if (step >= steps) return TrafficModel::kNowhere;
        return row * shape.columns + (kept ? shape.columns - 1 - step : step);
      };
      model.read_places<std::uint32_t>(kLanes, place).read_places<float>(kLanes, place);
      for (std::size_t step = first_step; step < first_step + batch; ++step) {
        // Behind the last step the first column is fetched, and weighs nothing.
        const std::size_t column = step >= steps ? 0 : kept ? shape.columns - 1 - step : step;
        read_samples(model, shape, column, first_sample, samples);
      }
      const auto point = [&](std::size_t i) {
        const std::size_t step = first_step + i;
        if (step >= steps) return TrafficModel::kNowhere;
        return first_point + (kept ? shape.columns - 1 - step : step + 1);
      };
      if (!panels) model.write_places<gpu::CurvePoint>(batch, point);
      if (panels && first_sample > 0) model.read_places<gpu::CurveSums>(batch, point);
      if (panels) model.write_places<gpu::CurveSums>(batch, point);
    }
  }
}

TrafficModel model_of(const Shape& shape) {
  const bool panels = shape.samples > gpu::kCurvePanelSamples;
  TrafficModel model;
  for (std::size_t row = 0; row < shape.rows; ++row) {
    for (std::size_t first = 0; first < shape.samples; first += gpu::kCurvePanelSamples) sweep(model, shape, row, first, panels);
    if (!panels) continue;
    // Sums become points; those of no and of all weights need none.
    constexpr std::size_t kThreads = 256;
    model.read_same<double>(kThreads);
    const auto sums = [&](std::size_t count) {
      return count == 0 || count == shape.columns ? TrafficModel::kNowhere : row * (shape.columns + 1) + count;
    };
    model.read_places<gpu::CurveSums>(shape.columns + 1, sums);
    model.write_run<gpu::CurvePoint>(row * (shape.columns + 1), shape.columns + 1);
  }
  return model;
}

void check_curves(const Shape& shape) {
  CAPTURE(shape.samples);
  std::vector<std::uint32_t> orders;
  for (std::size_t i = 0; i < shape.rows * shape.columns; ++i) orders.push_back(static_cast<std::uint32_t>(i % shape.columns));
  DeviceArray<float> weights(random_values(orders.size(), 1));
  DeviceArray<std::uint32_t> device_orders(orders);
  DeviceArray<float> inputs(random_values(shape.columns * shape.samples, 2));
  DeviceArray<float> outputs(random_values(shape.rows * shape.samples, 3));
  DeviceArray<gpu::CurveSums> sums(shape.rows * (shape.columns + 1));
  DeviceArray<gpu::CurvePoint> points(shape.rows * (shape.columns + 1));
  DeviceArray<double> norms(shape.rows);
  const gpu::QualityCurvesTask task{.rows = shape.rows,
                                    .columns = shape.columns,
                                    .samples = shape.samples,
                                    .weights = weights.data(),
                                    .orders = device_orders.data(),
                                    .inputs = inputs.data(),
                                    .outputs = outputs.data(),
                                    .sums = sums.data(),
                                    .points = points.data(),
                                    .dense_squared_norms = norms.data()};
  check_traffic(traffic_of([&] { return gpu::quality_curves(task, nullptr); }), model_of(shape));
}

}  // namespace

TEST_CASE("traffic of quality curves: every input once for a row, a step's weight, and every point once") {
  check_curves({5, 33, 20});
  check_curves({4, 32, 64});
  check_curves({3, 45, 100});
  check_curves({2, 40, 256});
  check_curves({2, 35, 500});
  check_curves({2, 9, 1024});
  check_curves({2, 9, 2148});
}

}  // namespace secateur::test

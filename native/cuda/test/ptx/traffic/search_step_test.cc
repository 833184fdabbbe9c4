#include "cuda/kernels/search_step.h"

#include <doctest/doctest.h>

#include <vector>

#include "device_array.h"
#include "traffic/count_traffic.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

namespace {

constexpr std::size_t kThreads = 256;
constexpr std::size_t kLanes = 32;

// One of the three sums of every row, which lie beside each other: a warp's are in three times the sectors that they fill.
auto sum_of_rows(std::size_t sum) {
  return [=](std::size_t row) { return 3 * row + sum; };
}

}  // namespace

TEST_CASE("traffic of a candidate: of every row its sparsity and one point in, and its sums and its quality out") {
  constexpr std::size_t kColumns = 20;
  for (const std::size_t rows : {256U, 301U}) {
    CAPTURE(rows);
    DeviceArray<gpu::CurvePoint> points(std::vector<gpu::CurvePoint>(rows * (kColumns + 1), {0.5F, 0.1F}));
    DeviceArray<double> norms(std::vector<double>(rows, 1.0));
    DeviceArray<float> sparsities(std::vector<float>(rows, 0.5F));
    DeviceArray<gpu::OutputProducts> products(rows);
    DeviceArray<double> qualities(rows);
    TrafficModel model;
    model.read_run<float>(0, rows).read_run<double>(0, rows);
    // A row's curve has its sectors to itself.
    model.read_places<gpu::CurvePoint>(rows, [](std::size_t row) { return row * (kColumns + 1) + kColumns / 2; });
    for (std::size_t sum = 0; sum < 3; ++sum) model.write_places<double>(rows, sum_of_rows(sum));
    model.write_run<double>(0, rows);
    const gpu::RowCurves curves{rows, kColumns, points.data(), norms.data()};
    const gpu::DeviceCandidate candidate{sparsities.data(), products.data(), qualities.data()};
    check_traffic(traffic_of([&] { return gpu::measure_rows(curves, candidate, nullptr); }), model);
  }
}

TEST_CASE("traffic of a step: rows go by four times, of one block") {
  for (const std::size_t rows : {256U, 301U}) {
    for (const bool is_first : {true, false}) {
      CAPTURE(rows);
      CAPTURE(is_first);
      DeviceArray<float> sparsities(std::vector<float>(rows, 0.5F));
      DeviceArray<gpu::OutputProducts> products(std::vector<gpu::OutputProducts>(rows, {0.5, 1, 0.5}));
      DeviceArray<double> qualities(std::vector<double>(rows, 0.7));
      DeviceArray<double> quality(1);
      // Better than the candidate's.
      DeviceArray<double> best_quality(std::vector<double>{1.0});
      DeviceArray<float> best_sparsities(rows);
      DeviceArray<double> moves(rows);
      DeviceArray<float> next_sparsities(rows);
      TrafficModel model;
      // The range of qualities, from the first one on.
      model.read_same<double>(kThreads).read_run<double>(0, rows);
      // Moves, and sums over the rows.
      for (std::size_t sum = 0; sum < 3; ++sum) model.read_places<double>(rows, sum_of_rows(sum));
      model.read_run<double>(0, rows).write_run<double>(0, rows);
      // Sparsities that have moved; the best ones.
      if (is_first) {
        model.write_run<float>(0, rows).write_one<double>();
      } else {
        model.read_same<double>(kThreads);
      }
      model.read_run<float>(0, rows).read_run<double>(0, rows).write_run<float>(0, rows).write_one<double>();
      // Their mean: a warp has 32 strands, one thread what is left.
      model.read_run<float>(0, rows / kLanes * kLanes);
      for (std::size_t row = rows / kLanes * kLanes; row < rows; ++row) model.read_same<float>(1);
      model.read_run<float>(0, rows).write_run<float>(0, rows);
      const gpu::SearchStepTask task{rows,
                                     0.5F,
                                     0.1,
                                     {sparsities.data(), products.data(), qualities.data()},
                                     quality.data(),
                                     is_first,
                                     best_quality.data(),
                                     best_sparsities.data(),
                                     moves.data(),
                                     next_sparsities.data()};
      check_traffic(traffic_of([&] { return gpu::move_rows(task, nullptr); }), model);
    }
  }
}

}  // namespace secateur::test

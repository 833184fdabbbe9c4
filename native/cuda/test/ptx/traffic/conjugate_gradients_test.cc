#include "cuda/kernels/conjugate_gradients.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "device_array.h"
#include "random_values.h"
#include "traffic/count_traffic.h"
#include "traffic/mask_rows.h"
#include "traffic/traffic_model.h"

namespace secateur::test {

TEST_CASE("traffic of conjugate gradients: every matrix once for each pass") {
  constexpr std::size_t kRows = 3;
  constexpr std::size_t kThreads = 256;
  for (const std::size_t columns : {512U, 333U}) {
    CAPTURE(columns);
    DeviceArray<std::uint8_t> mask(alternating_mask(kRows, columns));
    DeviceArray<float> inverse_diagonal(std::vector<float>(columns, 0.5F));
    const std::vector<float> values = random_values(kRows * columns, 1);
    DeviceArray<float> product(values);
    DeviceArray<float> direction(values);
    DeviceArray<float> residual(kRows * columns);
    DeviceArray<float> fitted(values);
    DeviceArray<double> progress(kRows);
    TrafficModel begin;
    TrafficModel step;
    for (std::size_t row = 0; row < kRows; ++row) {
      const std::size_t first = row * columns;
      // Residual, direction and progress.
      read_mask_row(begin, row, columns).read_places<float>(columns, kept_of_row(row, columns));
      begin.read_places<float>(columns, kept_of_row(row, columns)).read_run<float>(0, columns);
      begin.write_run<float>(first, columns).write_run<float>(first, columns).write_one<double>();
      // Curvature, of direction and product.
      step.read_same<double>(kThreads).read_run<float>(first, columns).read_run<float>(first, columns);
      // Residual where weights are kept, fitted weights, and progress.
      read_mask_row(step, row, columns).read_run<float>(first, columns).read_places<float>(columns, kept_of_row(row, columns));
      step.read_run<float>(first, columns).read_run<float>(first, columns).read_run<float>(0, columns);
      step.write_places<float>(columns, kept_of_row(row, columns)).write_run<float>(first, columns);
      // The next direction.
      step.read_run<float>(first, columns).read_run<float>(first, columns).read_run<float>(0, columns).write_run<float>(first, columns);
      step.write_one<double>();
    }
    const gpu::ConjugateGradientsTask task{
        kRows,           columns,       0.3F,           mask.data(), inverse_diagonal.data(), product.data(), direction.data(),
        residual.data(), fitted.data(), progress.data()};
    check_traffic(traffic_of([&] { return gpu::begin_conjugate_gradients(task, nullptr); }), begin);
    check_traffic(traffic_of([&] { return gpu::step_conjugate_gradients(task, nullptr); }), step);
  }
}

}  // namespace secateur::test

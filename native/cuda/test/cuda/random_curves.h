// Quality curves for tests of the search: nothing that weights would make, but values as they have them, with ties between rows.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <span>
#include <vector>

#include "cpu/allocation/metrics.h"
#include "cuda/kernels/search_step.h"
#include "device_array.h"

namespace secateur::test {

struct RandomCurves {
  RandomCurves(std::size_t its_rows, std::size_t its_columns, unsigned seed)
      : rows(its_rows), columns(its_columns), points(rows * (columns + 1)), dense_squared_norms(rows) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> uniform;
    for (std::size_t row = 0; row < rows; ++row) {
      // Some rows are copies of the one before, and one is silent.
      if (row > 0 && row % 5 == 0) {
        dense_squared_norms[row] = dense_squared_norms[row - 1];
        std::copy_n(point(row - 1, 0), columns + 1, point(row, 0));
        continue;
      }
      dense_squared_norms[row] = row == 3 ? 0 : 100 * uniform(random);
      const double steepness = 0.5 + 3 * uniform(random);
      for (std::size_t count = 0; count <= columns; ++count) {
        const double dropped = static_cast<double>(count) / static_cast<double>(columns);
        const double aligned = dense_squared_norms[row] > 0 ? 1 - std::pow(dropped, steepness) : 0;
        *point(row, count) = {static_cast<float>(aligned), static_cast<float>(dropped * (1 - dropped) * uniform(random))};
      }
    }
  }

  allocation::CurvePoint* point(std::size_t row, std::size_t count) { return &points[row * (columns + 1) + count]; }

  // By the CPU.
  void compare(std::span<const std::size_t> counts, allocation::OutputComparison& outputs) {
    for (std::size_t row = 0; row < rows; ++row) {
      outputs.rows[row].products = allocation::products_at(*point(row, counts[row]), dense_squared_norms[row]);
    }
  }

  std::size_t rows;
  std::size_t columns;
  std::vector<allocation::CurvePoint> points;
  std::vector<double> dense_squared_norms;
};

// The same on the device.
struct DeviceCurves {
  explicit DeviceCurves(const RandomCurves& curves)
      : points(curves.points), dense_squared_norms(curves.dense_squared_norms), rows(curves.rows), columns(curves.columns) {}
  gpu::RowCurves view() { return {rows, columns, points.data(), dense_squared_norms.data()}; }

  DeviceArray<allocation::CurvePoint> points;
  DeviceArray<double> dense_squared_norms;
  std::size_t rows;
  std::size_t columns;
};

}  // namespace secateur::test

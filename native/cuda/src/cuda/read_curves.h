// Quality curves that the device swept, on the host: for the optimal split, and for searches by metrics that kernels do not know.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "cpu/allocation/lower_hulls.h"
#include "cpu/allocation/metrics.h"
#include "secateur/memory_budget.h"

namespace secateur::gpu {

class ReadCurves final : public allocation::ErrorCurves {
 public:
  static std::uint64_t bytes(std::size_t rows, std::size_t columns) {
    return rows * (columns + 1) * sizeof(allocation::CurvePoint) + rows * sizeof(double);
  }

  // points: [rows, columns + 1].
  ReadCurves(std::size_t columns, Buffer<allocation::CurvePoint> points, std::vector<double> dense_squared_norms)
      : columns_(columns), points_(std::move(points)), dense_squared_norms_(std::move(dense_squared_norms)) {}

  std::size_t first_known(std::size_t) const override { return 0; }
  double at(std::size_t row, std::size_t count) const override { return squared_error_at(point(row, count), dense_squared_norms_[row]); }
  void load(std::size_t row, std::size_t first, std::span<double> errors) const override {
    for (std::size_t i = 0; i < errors.size(); ++i) errors[i] = at(row, first + i);
  }
  // peak_square: the largest square of the row's dense output; only some metrics are made of it.
  allocation::OutputSums output_at(std::size_t row, std::size_t count, double peak_square = 0) const {
    return {
        .products = products_at(point(row, count), dense_squared_norms_[row]), .squared_error = at(row, count), .peak_square = peak_square};
  }

 private:
  allocation::CurvePoint point(std::size_t row, std::size_t count) const { return points_[row * (columns_ + 1) + count]; }

  std::size_t columns_;
  Buffer<allocation::CurvePoint> points_;
  std::vector<double> dense_squared_norms_;
};

}  // namespace secateur::gpu

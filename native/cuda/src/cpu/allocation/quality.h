// How good the pruned output of a row or of the whole projection is. On the CPU and in CUDA kernels.
#pragma once

#include <cmath>

#include "host_device.h"

namespace secateur::allocation {

// The pruned output of a row at one count of dropped weights, in units of the dense output's squared norm (of 1 where that is 0): its inner
// product with the dense output, and the squared norm of its part orthogonal to the dense output. Both keep their float32 precision however
// close the pruned output is to the dense one and however small it is; storing the squared norm would lose 1 - cosine in rounding.
// A GPU loads and stores it whole.
struct alignas(8) CurvePoint {
  float aligned;
  float residual;
};

SECATEUR_HOST_DEVICE inline double point_unit(double dense_squared_norm) { return dense_squared_norm > 0 ? dense_squared_norm : 1; }

// The three numbers that the metrics are made of; those of a projection are the sums over its rows.
struct OutputProducts {
  double inner_product = 0;
  double dense_squared_norm = 0;
  double pruned_squared_norm = 0;

  void add(const OutputProducts& other) {
    inner_product += other.inner_product;
    dense_squared_norm += other.dense_squared_norm;
    pruned_squared_norm += other.pruned_squared_norm;
  }
};

SECATEUR_HOST_DEVICE inline OutputProducts products_at(CurvePoint point, double dense_squared_norm) {
  const double unit = point_unit(dense_squared_norm);
  const double aligned = static_cast<double>(point.aligned);
  OutputProducts products;
  products.inner_product = rounded_product(unit, aligned);
  products.dense_squared_norm = dense_squared_norm;
  products.pruned_squared_norm = rounded_product(unit, rounded_product(aligned, aligned) + static_cast<double>(point.residual));
  return products;
}

// Of the pruned output: what it lacks along the dense output, and what is orthogonal to that.
inline double squared_error_at(CurvePoint point, double dense_squared_norm) {
  const double lacking = (dense_squared_norm > 0 ? 1.0 : 0.0) - static_cast<double>(point.aligned);
  return point_unit(dense_squared_norm) * (lacking * lacking + static_cast<double>(point.residual));
}

SECATEUR_HOST_DEVICE inline double cosine(const OutputProducts& products) {
  constexpr double kEpsilon = 1e-8;
  const double norms = (std::sqrt(products.dense_squared_norm) + kEpsilon) * (std::sqrt(products.pruned_squared_norm) + kEpsilon);
  const double ratio = products.inner_product / norms;
  if (ratio < -1) return -1;
  return ratio > 1 ? 1 : ratio;
}

}  // namespace secateur::allocation

// A matrix of weights with scores for tests, on the host and on the device.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/kernels/scored_weights.h"
#include "device_array.h"
#include "random_values.h"

namespace secateur::test {

struct ScoredMatrix {
  ScoredMatrix(std::size_t rows_of_it, std::size_t columns_of_it)
      : rows(rows_of_it), columns(columns_of_it), weights(random_values(rows * columns, 5)), scales(random_values(columns, 6)) {
    for (float& scale : scales) scale = std::abs(scale);
    // Many equal scores: dead inputs, and weights that are equal or differ by their sign.
    for (std::size_t i = 0; i < scales.size(); i += 3) scales[i] = 0;
    for (std::size_t i = 0; i + 1 < weights.size(); i += 5) weights[i] = i % 2 == 0 ? 0.25F : -0.25F;
    if (columns > 2) scales[2] = scales[1] = 1;
  }

  std::uint32_t key(std::size_t i) const { return __builtin_bit_cast(std::uint32_t, std::abs(weights[i]) * scales[i % columns]); }

  std::size_t rows;
  std::size_t columns;
  std::vector<float> weights;
  std::vector<float> scales;
};

struct ScoredOnDevice {
  explicit ScoredOnDevice(const ScoredMatrix& matrix)
      : weights(matrix.weights), scales(matrix.scales), rows(matrix.rows), columns(matrix.columns) {}
  gpu::ScoredWeights view() { return {rows, columns, weights.data(), scales.data()}; }

  DeviceArray<float> weights;
  DeviceArray<float> scales;
  std::size_t rows;
  std::size_t columns;
};

}  // namespace secateur::test

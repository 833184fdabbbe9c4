// Squared distances of long vectors.
#pragma once

#include <cstddef>

#include "cuda/gpu.h"

namespace secateur::gpu {

// Values that are summed up by themselves.
inline constexpr std::size_t kDistancePart = std::size_t{1} << 16;

constexpr std::size_t distance_parts(std::size_t size) { return (size + kDistancePart - 1) / kDistancePart; }

// sums: device [distance_parts(size)], float64, in an order that depends on the size alone; their sum is the squared distance of x and y.
// y: null for zeros.
cudaError_t squared_distance(const float* x, const float* y, std::size_t size, double* sums, cudaStream_t stream);

}  // namespace secateur::gpu

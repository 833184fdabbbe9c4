// Products of rows with rows.
#pragma once

#include <cstddef>

#include "cuda/gpu.h"

namespace secateur::gpu {

// dots[row] = Σ left[row, :] · right[row, :]; matrices [rows, columns] of float32, sums of float64 in an order that depends on the columns
// alone.
cudaError_t row_dots(const float* left, const float* right, std::size_t rows, std::size_t columns, double* dots, cudaStream_t stream);

}  // namespace secateur::gpu

// Points of quality curves at given counts: what a step of the search reads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/kernels/quality_curves.h"

namespace secateur::gpu {

// found[row] = points[row, counts[row]]; points: [rows, columns + 1], counts: [rows], each 0 to columns.
cudaError_t look_up_points(const CurvePoint* points, const std::int32_t* counts, std::size_t rows, std::size_t columns, CurvePoint* found,
                           cudaStream_t stream);

}  // namespace secateur::gpu

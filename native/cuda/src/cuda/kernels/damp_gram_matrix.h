// Makes a Gram matrix safe to invert.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/gpu.h"

namespace secateur::gpu {

// gram: [columns, columns], in and out. A dead column, whose diagonal is 0, gets `of_dead` there and dead[column] = 1. Then that share of
// the mean diagonal is added to the diagonal.
cudaError_t damp_gram_matrix(double* gram, std::size_t columns, float of_dead, double share, std::uint8_t* dead, cudaStream_t stream);

}  // namespace secateur::gpu

// Makes a Gram matrix safe to invert, as SparseGPT does (arXiv 2301.00774).
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/gpu.h"

namespace secateur::gpu {

// sums: [columns, columns], the Gram matrix of the inputs of `samples` samples, in and out. The published code damps 2 / samples times this
// matrix; the factor changes neither what is dropped nor how the rest makes up for it, so it is left out. A dead column, whose diagonal is
// 0, gets samples / 2 there and dead[column] = 1. Then a hundredth of the mean diagonal is added to the diagonal.
cudaError_t damp_gram_matrix(double* sums, std::size_t columns, std::size_t samples, std::uint8_t* dead, cudaStream_t stream);

}  // namespace secateur::gpu

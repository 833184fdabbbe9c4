// Upper Cholesky factor of the inverse of a matrix, as weight updates with the inverse Hessian need it.
#pragma once

#include <cstddef>

#include "cuda/gpu.h"

namespace secateur::gpu {

// matrix [size, size]: symmetric and positive definite, of which the lower half and the diagonal are read. Its upper half and diagonal
// become U with UᵀU = matrix⁻¹, diagonal positive; what is below the diagonal is scratch afterwards. Float64, in a fixed order.
// *failed, which the caller clears, becomes 1 when a pivot is not a positive number; U is meaningless then.
cudaError_t inverse_factor(double* matrix, std::size_t size, unsigned* failed, cudaStream_t stream);

}  // namespace secateur::gpu

// Upper Cholesky factor of the inverse of a matrix, as weight updates with the inverse Hessian need it.
#pragma once

#include <cstddef>

#include "secateur/call_context.h"
#include "secateur/thread_pool.h"

namespace secateur::cpu {

// matrix [size, size]: symmetric and positive definite, of which the lower half and the diagonal are read. Its upper half and diagonal
// become U with UᵀU = matrix⁻¹, diagonal positive; what is below the diagonal is scratch afterwards. Tiles of the diagonal in float64,
// products in float32, in an order that depends on the size alone. False when a pivot is not a positive number; the matrix is then
// meaningless.
bool inverse_factor(float* matrix, std::size_t size, ThreadPool& pool, CallContext& context);

}  // namespace secateur::cpu

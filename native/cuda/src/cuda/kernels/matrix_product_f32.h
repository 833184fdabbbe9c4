// Matrix products in float32.
#pragma once

#include <cuda_runtime.h>

#include "cuda/kernels/matrix_product.h"

namespace secateur::gpu {

// Any sizes and strides; rows that begin at multiples of 16 bytes are read faster. Each element is one chain of fused multiply-adds in the
// order of the inner dimension: its bits depend on its own row and column alone.
cudaError_t matrix_product_f32(const MatrixProduct<float>& task, cudaStream_t stream);

}  // namespace secateur::gpu

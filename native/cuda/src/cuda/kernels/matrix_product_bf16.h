// Matrix products of bfloat16 with float32 sums, on tensor cores.
#pragma once

#include <cuda_runtime.h>

#include "cuda/kernels/matrix_product.h"

namespace secateur::gpu {

struct bfloat16;

// Any sizes and strides; rows that begin at multiples of 16 bytes are read faster. Each element adds steps of 16 along the inner dimension in
// order: its bits depend on its own row and column alone.
cudaError_t matrix_product_bf16(const MatrixProduct<bfloat16>& task, cudaStream_t stream);

}  // namespace secateur::gpu

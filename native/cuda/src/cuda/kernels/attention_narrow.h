// Causal attention as in attention.h, with its products on tensor cores.
#pragma once

#include <cuda_runtime.h>

#include "cuda/kernels/attention.h"
#include "cuda/tensor_core.h"

namespace secateur::gpu {

// softmax(queries · keysᵀ / √head_dimension, causal, within the window) · values, for every head of every sample by itself. Queries and the
// weights of values are rounded as keys are stored; scores, sums of weights and the result are float32. cudaErrorInvalidValue for wider
// heads.
cudaError_t attend_narrow(const AttentionTask<bfloat16>& task, cudaStream_t stream);
cudaError_t attend_narrow(const AttentionTask<float16>& task, cudaStream_t stream);

}  // namespace secateur::gpu

// Causal attention as in attention.h, with its products on tensor cores.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "cuda/tensor_core.h"

namespace secateur::gpu {

struct AttentionBF16Task {
  std::size_t samples;
  std::size_t sequence_length;
  std::size_t heads;
  // Divides heads; neighbouring heads share keys and values.
  std::size_t key_value_heads;
  // At most kMaximumHeadDimension.
  std::size_t head_dimension;
  // [samples · sequence_length, heads · head_dimension]
  const float* queries;
  // [samples · sequence_length, key_value_heads · head_dimension]
  const bfloat16* keys;
  const bfloat16* values;
  // Out. Like queries.
  float* result;
  // Keys that a query sees, its own the last; 0 for all.
  std::size_t window = 0;
};

// softmax(queries · keysᵀ / √head_dimension, causal, within the window) · values, for every head of every sample by itself. Queries and the
// weights of values are rounded to bfloat16; scores, sums of weights and the result are float32. cudaErrorInvalidValue for wider heads.
cudaError_t attend_bf16(const AttentionBF16Task& task, cudaStream_t stream);

}  // namespace secateur::gpu

// Causal attention of many heads, without a matrix of scores in memory.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace secateur::gpu {

inline constexpr std::size_t kLargestHeadDimension = 128;

// Rows are tokens, `sequence_length` of each sample after another, `..._stride` elements apart; head h is columns h · head_dimension and
// following. Query head h reads key and value head h / (heads / key_value_heads). All float32 in device memory.
struct AttentionTask {
  const float* queries;
  const float* keys;
  const float* values;
  float* result;
  std::size_t query_stride;
  std::size_t key_stride;
  std::size_t value_stride;
  std::size_t result_stride;
  std::size_t samples;
  std::size_t sequence_length;
  std::size_t heads;
  std::size_t key_value_heads;
  std::size_t head_dimension;
};

// result = softmax(queries · keysᵀ / √head_dimension, causal) · values. The result overlaps nothing. Bits depend on the sample alone.
// cudaErrorInvalidValue: head_dimension beyond kLargestHeadDimension, or heads no multiple of key_value_heads.
cudaError_t attention(const AttentionTask& task, cudaStream_t stream);

}  // namespace secateur::gpu

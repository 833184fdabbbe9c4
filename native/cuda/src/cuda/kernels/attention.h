// Causal attention with grouped keys and values. The scores of a tile of queries with a tile of keys are never written to memory.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace secateur::gpu {

inline constexpr std::size_t kMaximumHeadDimension = 128;

// Stored: how keys and values are held.
template <class Stored>
struct AttentionTask {
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
  const Stored* keys;
  const Stored* values;
  // Out. Like queries.
  float* result;
  // Keys that a query sees, its own the last; 0 for all.
  std::size_t window = 0;
};

// softmax(queries · keysᵀ / √head_dimension, causal, within the window) · values, for every head of every sample by itself.
// cudaErrorInvalidValue for wider heads.
cudaError_t attend(const AttentionTask<float>& task, cudaStream_t stream);

}  // namespace secateur::gpu

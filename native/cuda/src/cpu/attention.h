// Causal attention of one head of one sample.
#pragma once

#include <cstddef>

namespace secateur::cpu {

// Queries handled at a time; bounds the scores in memory.
inline constexpr std::size_t kQueryTile = 128;

// One head: rows of queries, keys, values and result are `..._stride` elements apart, each row `size` wide.
struct AttentionHead {
  const float* queries;
  std::size_t query_stride;
  const float* keys;
  const float* values;
  std::size_t key_stride;
  float* result;
  std::size_t result_stride;
  std::size_t size;
};

// Floats of scratch `attend` needs for a sequence of that length.
std::size_t attention_scratch(std::size_t sequence_length);

// result = softmax(queries · keysᵀ / √size, causal) · values for positions 0 … sequence_length-1.
void attend(const AttentionHead& head, std::size_t sequence_length, float* scratch);

double attention_flops(std::size_t sequence_length, std::size_t size);

}  // namespace secateur::cpu

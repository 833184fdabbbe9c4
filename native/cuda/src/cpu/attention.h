// Causal attention of one head of one sample.
#pragma once

#include <cstddef>

namespace secateur::cpu {

// Queries handled at a time; bounds the scores in memory. A multiple of the rows whose sums fit the registers of any instruction set.
inline constexpr std::size_t kQueryTile = 48;
// Keys that lie side by side in a panel.
inline constexpr std::size_t kKeyPanel = 64;

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
  // Keys that a query sees, its own the last; at least 1, and no less than the length where it sees all.
  std::size_t window;
};

// Where the parts of a head's scratch memory begin, in floats. Every part and row is a whole number of vectors of any instruction set.
struct AttentionLayout {
  std::size_t padded_length;
  std::size_t padded_size;
  // [panels, size, kKeyPanel]
  std::size_t keys;
  // [length, padded_size]
  std::size_t values;
  // [kQueryTile, size]
  std::size_t queries;
  // [kQueryTile, padded_length]
  std::size_t scores;
  // [kQueryTile, padded_size]
  std::size_t sums;
  std::size_t total;
};

AttentionLayout attention_layout(std::size_t sequence_length, std::size_t size);

// result = softmax(queries · keysᵀ / √size, causal, within the window) · values for positions 0 … sequence_length-1. Scratch: layout.total
// floats, aligned to 64 bytes. bf16: both products take bfloat16 values, where the processor has fast ones; sums and the softmax are
// float32.
void attend(const AttentionHead& head, std::size_t sequence_length, bool bf16, const AttentionLayout& layout, float* scratch);

double attention_flops(std::size_t sequence_length, std::size_t size, std::size_t window);

}  // namespace secateur::cpu

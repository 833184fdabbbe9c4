// Sums of bfloat16 products, by instructions for pairs of them that some processors have (AVX512_BF16).
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/attention.h"

namespace secateur::cpu {

struct PairMath {
  // To the nearest bfloat16, ties to even. Of every 32 values the result has, for i = 0, 4, 8, 12, those from i and those from 16 + i on,
  // four each: so the pairs of two rows lie beside one another. `size` is a multiple of 32; both are aligned to 64 bytes.
  void (*narrow)(const float* source, std::size_t size, std::uint16_t* result);

  // sums[row, :] += Σ over the pairs j from starts[row] to starts[row + 1] of values[2j] · inputs[columns[2j], :] +
  // values[2j + 1] · inputs[columns[2j + 1], :], in that order. `sums` have rows of kTokenPanel tokens, `inputs` as many in the order of
  // narrow; both are aligned to 64 bytes.
  void (*add_sparse_products)(const std::uint32_t* starts, const std::uint8_t* columns, const std::uint16_t* values, std::size_t rows,
                              const std::uint16_t* inputs, float* sums);

  // As VectorMath's; queries, keys, values and the weights that the softmax gives are rounded to bfloat16.
  void (*attend)(const AttentionHead& head, std::size_t sequence_length, const AttentionLayout& layout, float* scratch);
};

// Null where the processor, or the instruction set that was selected, has no such instructions.
const PairMath* pair_math();

}  // namespace secateur::cpu
